"""The record of a run on disk, from which it is taken up again: append-only JSON lines, one an event.

What changes the state of a run (a step done, say) is synced to the disk before the run goes on; metrics
are only flushed. A line torn by a crash is cut off. An event that a resumed run produces again (it goes on
from a checkpoint, behind which metrics were noted already) is not noted twice.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from runner.events import Event, Metrics, Progress, StepDone


class Record(msgspec.Struct, frozen=True):
    """An event and when it happened, in seconds since 1970."""

    time: float
    event: Event


class Progressed:
    """How far a run has come by its records: results of the steps done, and what was measured."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.results: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}
        self._measured: set[tuple[Any, ...]] = set()
        for record in records:
            self.take_in(record.event)

    def has(self, step: str, key: str) -> bool:
        """Say whether a step is done, for the same key."""
        return self._keys.get(step) == key

    def measured(self, event: Event) -> bool:
        """Say whether these metrics were noted before."""
        return isinstance(event, Metrics) and (event.at, *event.values) in self._measured

    def take_in(self, event: Event) -> None:
        """Count an event in."""
        if isinstance(event, StepDone):
            self.results[event.step] = event.result
            self._keys[event.step] = event.key
        elif isinstance(event, Metrics):
            self._measured.add((event.at, *event.values))


class Journal:
    """A run's journal, opened: what earlier processes noted, and a place for more."""

    def __init__(self, path: Path) -> None:
        self.progressed = Progressed(read(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(_whole_bytes(path))

    def add(self, event: Event) -> Record | None:
        """Note an event and return its record; None where it stands here already or is not worth keeping."""
        if isinstance(event, Progress) or self.progressed.measured(event):
            return None
        record = Record(time.time(), event)
        self._file.write(msgspec.json.encode(record) + b"\n")
        self._file.flush()
        if not isinstance(event, Metrics):
            os.fsync(self._file.fileno())
        self.progressed.take_in(event)
        return record

    def close(self) -> None:
        """Sync and close the file."""
        os.fsync(self._file.fileno())
        self._file.close()


def read(path: Path) -> list[Record]:
    """Return the whole records of a journal; none where there is no file."""
    if not path.exists():
        return []
    decoder = msgspec.json.Decoder(Record)
    return [decoder.decode(line) for line in path.read_bytes()[: _whole_bytes(path)].splitlines()]


def _whole_bytes(path: Path) -> int:
    return path.read_bytes().rfind(b"\n") + 1
