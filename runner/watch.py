"""Follow hosted jobs to their end, one or hundreds, in one process.

RUN is a run's folder, its name under `runs/`, or the start of its plan id; without it, every run there whose
hosted job has not ended. Ctrl-C leaves the jobs running. Metrics of the time in between are fetched.
"""

import heapq
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from runner import backends, planning
from runner.errors import BusyError, LeftRunning, RequestError, RunnerError, StopAsked
from runner.execution import execute, report
from runner.plan import Run
from runner.record import layout, run_folders
from runner.record.events import State
from runner.record.journal import Record, read_state
from runner.terminal import cli, console
from runner.tracking.follower import Follower


def main() -> None:
    """Follow the runs named, or all; leave with 0, 1 (one failed), 2 (a wrong name) or 130 (stopped)."""
    cli.main(_watch)


def _watch(arguments: list[str]) -> int:
    from runner.execution.pipeline import run_and_report

    parser = cli.parser("runner.watch", __doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="the runs; without any all whose job has not ended")
    given = parser.parse_args(arguments)
    named = dict.fromkeys(run_folders.find(name, given.runs_folder) for name in given.runs)
    runs = [_hosted(planning.load(folder)) for folder in named or _under_way(given.runs_folder)]
    # One run is followed as its own command does, with progress; of many only changes of state are printed.
    if len(runs) > 1:
        return _Watch(runs).to_end()
    for run in runs:
        run_and_report(run)
    if not runs:
        console.say(f"{given.runs_folder}/: no hosted job is under way.")
    return 0


def _under_way(runs: Path) -> list[Path]:
    """Return the folders of hosted runs whose job was created and which are neither finished nor set aside."""
    found = []
    for folder in sorted(run_folders.every(runs)):
        known = read_state(folder)
        if not (folder / layout.REQUEST).exists() or known.failed_for_good:
            continue
        if "create" in known.results and execute.finished(_hosted(planning.load(folder))) is None:
            found.append(folder)
        elif "job" in known.intents and "create" not in known.results:
            console.complain(f"{folder}: was stopped while its job was created; give its command again.")
    return found


def _hosted(run: Run) -> Run:
    # Without it `backend.follow=false` would look once and leave again.
    if (whole := backends.of(run).to_its_end(run)) is None:
        raise RequestError(f"{run.folder}: is no hosted run; give its command again to resume it.")
    return whole


Work = Generator[float, None, execute.Results]


class _Watch:
    """Many jobs in turn: each is looked at when it is due, and never two at once."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = list(runs)
        self._codes = {0}
        self._due: list[tuple[float, int]] = []

    def to_end(self) -> int:
        """Follow all jobs until each has ended and return the exit code."""
        with ExitStack() as stack, execute.stop_flag() as asked:
            self._runs = [run for run in self._runs if self._held(stack, run)]
            follower = Follower(self._runs)
            works = [execute.proceed(run, _Listener(run)) for run in self._runs]
            # A heap by time: the next one that is due, whatever the pace of the others.
            self._due = [(time.monotonic(), number) for number in range(len(works))]
            while self._due:
                due, number = heapq.heappop(self._due)
                execute.sleep(due - time.monotonic(), asked)
                if asked():
                    self._leave([works[number], *(works[other] for _, other in self._due)])
                else:
                    self._advance(number, works[number], follower)
            follower.end()
        return max(self._codes)

    def _leave(self, works: Sequence[Work]) -> None:
        """Stop following; what runs at the service continues."""
        self._due = []
        self._codes.add(StopAsked.exit_code)
        for work in works:
            with suppress(RunnerError):
                work.throw(LeftRunning("the job continues at the service"))
        console.say(f"{len(works)} jobs continue at the service; python -m runner.watch follows them again.")

    def _held(self, stack: ExitStack, run: Run) -> bool:
        try:
            stack.enter_context(execute.alone(run.folder))
        except BusyError as error:
            console.complain(str(error))
            self._codes.add(error.exit_code)
            return False
        return True

    def _advance(self, number: int, work: Work, follower: Follower) -> None:
        """Advance one run to its next safe point, or end it."""
        run = self._runs[number]
        try:
            seconds = next(work)
        except StopIteration as end:
            outcome = report.outcome(run, end.value)
        except (RunnerError, OSError) as error:
            outcome = report.failure(error)
            self._codes.add(getattr(error, "exit_code", RunnerError.exit_code))
        else:
            # In one process: 500 jobs followed by a process each would need 500 interpreters.
            heapq.heappush(self._due, (time.monotonic() + seconds, number))
            return
        report.write(run, outcome)
        follower.finish(run, outcome.status)
        message = f": {outcome.message}" if outcome.message else ""
        console.say(f"{run.folder.name}: {outcome.status}{message}")


class _Listener:
    """Says of one job among many what a person would want to hear."""

    def __init__(self, run: Run) -> None:
        self._name = run.folder.name

    def __call__(self, record: Record) -> None:
        """Show changes of state only."""
        if isinstance(record.event, State):
            console.say(f"{self._name}: {record.event.what} {record.event.value}")


if __name__ == "__main__":
    main()
