"""Execution: each step of a run that the journal does not hold yet, its events journaled and passed on.

The order of things is what makes a run safe to kill: an event is in the journal before anyone hears of it;
a step's result is synced before the next step begins; one live process works on a plan at a time.
"""

import os
import platform
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TypeVar

import msgspec
from filelock import FileLock, Timeout

from runner import distributed, graders
from runner.backends import Step
from runner.errors import STOPPED, BusyError, EndedError, LostError, RunnerError, StopAsked
from runner.evaluation import steps as evaluation
from runner.plan import Run
from runner.record import layout, run_folders
from runner.record.events import Event, Failed, Progress, Result, Started, StepDone, StepStarted, Stopped, Wait
from runner.record.files import write_json
from runner.record.journal import Journal, MemoryJournal, Record, read_state
from runner.request import check

Listener = Callable[[Record], None]
Results = dict[str, Result]
Done = TypeVar("Done")

PACKAGES = ("runner", "torch", "transformers", "peft", "mlflow", "hydra-core", "openai", "azure-ai-projects")
SLICE_SECONDS = 0.2
"""How long a signal may have to wait for a sleeping step."""


def finished(run: Run) -> Results | None:
    """Return the results of a run that has its model and whose every step is done, else None. Touches nothing."""
    done = read_state(run.folder)
    # Without `save` there is no model, whatever else is done.
    steps = evaluation.of(run, done) if "save" in done.results else []
    return done.results if steps and all(done.has(step.name, step.key) for step in steps) else None


def stuck(run: Run) -> bool:
    """Say whether a run ended in a way that resuming cannot fix. Touches nothing."""
    return read_state(run.folder).failed_for_good


def execute(run: Run, listener: Listener, wanted: Callable[[], RunnerError | None] = lambda: None) -> Results:
    """Carry out what is left of a run and return each step's result; every event goes to the listener.

    At each safe point `wanted` may return what to end the work with.

    To be called within `alone(run.folder)`. Raises `StopAsked` after a signal, and whatever a step raises;
    the journal says so in each case, and the same call resumes from there.
    """
    return _to_end(proceed(run, listener), wanted)


def assist(run: Run) -> Results:
    """Go through the same steps as the process that carries out the run, and compute with it; journal nothing."""
    return _to_end(
        _carry_out_all(run, MemoryJournal(distributed.group().broadcast(None)), lambda _: None), lambda: None
    )


def _to_end(work: Generator[float, None, Results], wanted: Callable[[], RunnerError | None]) -> Results:
    """Run some work until it is done, or stopped at the event after a signal, or as `wanted`."""
    with stop_flag() as asked:
        try:
            seconds = next(work)
            while True:
                sleep(seconds, asked)
                # Ranks agree each time: one that stopped alone would leave the others waiting for its part of a sum.
                end = _reason_to_end(asked()) or wanted()
                seconds = work.throw(end) if end else next(work)
        except StopIteration as done:
            results: Results = done.value
            return results


def to_its_end(work: Generator[Event, None, Done], listener: Callable[[Event], None]) -> Done:
    """Run some work of one process until it is done, or stopped at the event after a signal; return its result.

    Raises `StopAsked` after a signal.
    """
    with stop_flag() as asked:
        try:
            while True:
                event = next(work)
                listener(event)
                sleep(event.seconds if isinstance(event, Wait) else 0.0, asked)
                if asked():
                    work.throw(StopAsked(STOPPED))
        except StopIteration as done:
            result: Done = done.value
            return result


def _reason_to_end(asked: bool) -> RunnerError | None:
    """Return what all processes throw into their work here, if anything: one was asked to stop, or is gone."""
    try:
        return StopAsked(STOPPED) if distributed.group().any_of(asked) else None
    except LostError as lost:
        return lost


def proceed(run: Run, listener: Listener) -> Generator[float, None, Results]:
    """Carry out what is left of a run, as a generator, so that one process can do so with many runs in turn.

    Each yield is a safe point, where `StopAsked` may be thrown in, and gives the seconds that there is nothing to do.
    """
    # Before the journal, by which other commands know the runs that have begun.
    keep(run)
    journal = Journal(run.folder / layout.JOURNAL)
    # Only rank 0 has a journal; by its state the others skip the same steps.
    distributed.group().broadcast(journal.state)
    return (yield from _carry_out_all(run, journal, listener))


def _carry_out_all(run: Run, journal: Journal | MemoryJournal, listener: Listener) -> Generator[float, None, Results]:
    """Carry out each step that the journal does not hold."""
    steps = evaluation.of(run, journal.state)

    def note(event: Event) -> None:
        """Journal an event, then pass it to the listener, unless the journal holds it already."""
        record = Record(time.time(), event) if isinstance(event, Progress) else journal.add(event)
        if record is not None:
            listener(record)

    try:
        note(Started(platform.node(), versions()))
        with distributed.group().watched():
            for step in steps:
                if not journal.state.has(step.name, step.key):
                    yield from _carry_out(step, note)
    except (StopAsked, KeyboardInterrupt) as stop:
        note(Stopped(str(stop) or "interrupted"))
        raise
    except Exception as error:
        note(Failed(_sentence(error), isinstance(error, EndedError)))
        raise
    return journal.state.results


def _carry_out(step: Step, note: Callable[[Event], None]) -> Generator[float, None, None]:
    """Run a step to its result; what is thrown in is passed to the step."""
    note(StepStarted(step.name))
    started = time.perf_counter()
    work = step.run()
    try:
        event = next(work)
        while True:
            note(event)
            try:
                yield event.seconds if isinstance(event, Wait) else 0.0
            except (StopAsked, LostError) as end:
                # Not raised here: the step may have to say what continues without us, as a hosted job does.
                event = work.throw(end)
            else:
                event = next(work)
    except StopIteration as end:
        seconds = round(time.perf_counter() - started, 3)
        note(StepDone(step.name, step.key, seconds, end.value))


def keep(run: Run) -> None:
    """Write into the run's folder what was planned and what was asked for."""
    # At each start, as the request may differ in what the plan does not hold: samples, graders, tracking.
    write_json(run.folder / layout.PLAN, msgspec.Raw(run.plan.canonical))
    write_json(run.folder / layout.REQUEST, graders.hidden(check.as_composed(run.request)))
    if run.survey is not None:
        write_json(run.folder / layout.SURVEY, run.survey)


def sleep(seconds: float, asked: Callable[[], bool]) -> None:
    """Sleep, but not on after a signal."""
    # In slices: `time.sleep` continues after a signal whose handler raises nothing (PEP 475), and ours sets a flag.
    until = time.monotonic() + seconds
    while not asked() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, SLICE_SECONDS))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the run's folder for this process; the system lets go of it when the process dies, however it dies.

    Raises `BusyError` with the process and machine that hold it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Next to the lock, which holds nothing: the system's own lock is free the moment its process dies.
    owner = folder / layout.OWNER
    lock = FileLock(folder / layout.LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        who = msgspec.json.decode(owner.read_bytes()) if owner.exists() else {}
        raise BusyError(
            f"{folder}: process {who.get('pid', '?')} on {who.get('host', '?')} works on this plan already; "
            "wait for it, or stop it and give the same command again."
        ) from error
    try:
        owner.write_bytes(msgspec.json.encode({"pid": os.getpid(), "host": platform.node()}))
        yield
    finally:
        lock.release()


@contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """Within the block the first SIGINT or SIGTERM only raises a flag, the second stops a single process at once."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked and distributed.this_rank().world_size == 1:  # else torchrun ends those that do not stop
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # a launcher's worker thread gets no signals
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def set_aside(folder: Path) -> None:
    """Rename a run's folder, so that the same plan can be run again; nothing is deleted."""
    if folder.exists():
        with alone(folder):
            number = 1 + len(run_folders.set_aside(folder))
            folder.rename(folder.with_name(f"{folder.name}{run_folders.SET_ASIDE}{number}"))


def versions() -> dict[str, str]:
    """Return the versions of Python, the runner's code and the packages that decide a result, as far as installed."""
    return {"python": platform.python_version(), "runner's code": _code(), **_installed()}


@cache  # 20 ms, and one process may execute hundreds of hosted runs
def _installed() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def _code() -> str:
    """Return a fingerprint of the runner's own code, which says more than its version."""
    digest = sha256()
    # A version says what was released, and a checkout changes between releases.
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, RunnerError) else f"{type(error).__name__}: {error}"
