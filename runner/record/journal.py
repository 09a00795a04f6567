"""The record of a run on disk, from which it is taken up again: append-only JSON lines, one per event.

What changes the state of a run (a step done, say) is synced to the disk before the run continues;
metrics are only flushed. A line torn by a crash is cut off. An event that a resumed run produces again (it resumes at
a checkpoint, behind which metrics were noted already, or reads a service's events again) is not noted twice.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from runner.errors import RunnerError
from runner.record import files, layout
from runner.record.events import (
    Created,
    Event,
    Failed,
    Intent,
    Metrics,
    Progress,
    Removed,
    Result,
    Said,
    State,
    StepDone,
    Wait,
)  # fmt: skip


class Record(msgspec.Struct, frozen=True):
    """An event and when it happened, in seconds since 1970."""

    time: float
    event: Event


class RunState:
    """How far a run has come by its records: what was done, measured, created and heard; grows as it runs."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.results: dict[str, Result] = {}
        self.intents: dict[str, Mapping[str, object]] = {}
        self.created: dict[tuple[str, str], Created] = {}
        self.states: dict[str, str] = {}
        self.failed_for_good = False
        self._keys: dict[str, str] = {}
        self._measured: dict[str, int] = {}  # by name the steps, a bit each: few bytes even for hundreds of long jobs
        self._said: set[str] = set()
        for record in records:
            self.apply(record.event)

    def has(self, step: str, key: str) -> bool:
        """Say whether a step is done, for the same key."""
        return self._keys.get(step) == key

    def latest(self, *steps: str) -> str | None:
        """Return which of some steps was done last, for whatever key, and not undone since."""
        return next((step for step in reversed(self._keys) if step in steps), None)

    @property
    def job(self) -> str:
        """The id of the run's job at a hosted service; empty where there is none yet."""
        return str(self.results.get("create", {}).get("job", ""))

    def news(self, event: Event) -> Event | None:
        """Return what of an event is not known yet, None where nothing is."""
        match event:
            # For the eye and the clock only: a resumed run needs neither.
            case Wait() | Progress():
                return None
            case Metrics(step, values, time):
                # A resumed run measures again what came after its last checkpoint, and perhaps further metrics.
                fresh = {name: value for name, value in values.items() if not self._measured.get(name, 0) >> step & 1}
                return Metrics(step, fresh, time) if fresh else None
            case Said(id=name) if name in self._said:
                return None
            case State(what, value) if self.states.get(what) == value:
                return None
            # A step looks before it makes anything, and says of what it finds that it was made.
            case Created(what, name) if (what, name) in self.created:
                return None
        return event

    def apply(self, event: Event) -> None:
        """Apply an event to the state."""
        match event:
            case StepDone(step, key, _, result):
                self.results[step] = result
                self._keys.pop(step, None)  # so that keys are in the order in which steps were done last
                self._keys[step] = key
                self.failed_for_good = False
            case Failed(for_good=True):
                self.failed_for_good = True
            case Metrics(step, values):
                for name in values:
                    self._measured[name] = self._measured.get(name, 0) | 1 << step
            case Intent(what, detail):
                self.intents[what] = detail
            case Created(what, name):
                self.created[what, name] = event
            case Removed(what, name, undoes):
                self.created.pop((what, name), None)
                self._keys.pop(undoes, None)
            case Said(id=name):
                self._said.add(name)
            case State(what, value):
                self.states[what] = value


class Journal:
    """A run's journal: what earlier processes noted, and a place for more.

    The file is opened for each line: who follows hundreds of jobs would run out of open files.
    """

    def __init__(self, path: Path) -> None:
        self.state = RunState(read(path))
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        files.cut_torn_line(path)

    def add(self, event: Event) -> Record | None:
        """Note an event and return its record; None where it is known already or is not worth keeping."""
        news = self.state.news(event)
        if news is None:
            return None
        # A service's own time, where an event has one: it is heard of minutes later.
        record = Record(getattr(event, "time", None) or time.time(), news)
        # A sync waits for the disk. Metrics come at each step, and what a power cut has taken of them is computed or
        # heard again.
        files.append(self._path, msgspec.json.encode(record), sync=not isinstance(event, Metrics | Said))
        # After the file: what could not be written has not happened.
        self.state.apply(news)
        return record


class MemoryJournal:
    """Replaces the journal in a process next to the one that keeps it: how far the run has come, and no file."""

    def __init__(self, state: RunState) -> None:
        self.state = state

    def add(self, event: Event) -> Record | None:
        """Apply an event to the state."""
        news = self.state.news(event)
        if news is not None:
            self.state.apply(news)
        return None


def read(path: Path) -> list[Record]:
    """Return the whole records of a journal; none where there is no file.

    Raises `RunnerError` where it is damaged: a line that is no record, other than a torn last one.
    """
    decoder = msgspec.json.Decoder(Record)
    try:
        return [decoder.decode(line) for line in files.whole_lines(path).splitlines()]
    except msgspec.MsgspecError as error:
        raise RunnerError(f"{path}: is damaged ({error}); move the run's folder away to start over.") from error


def read_state(folder: Path) -> RunState:
    """Return how far the run of a folder has come; not at all where it has no journal. Touches nothing."""
    return RunState(read(folder / layout.JOURNAL))
