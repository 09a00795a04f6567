"""How a run came out, as others read it: the last value of each metric, and the report in its folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import msgspec

from runner.record.events import Metrics, Result
from runner.record.files import read_json
from runner.record.journal import Record
from runner.record.layout import REPORT


class KeptCheckpoint(TypedDict):
    """A checkpoint that a hosted job has kept as a model of its own."""

    model: str
    step: int


class Saved(TypedDict, total=False):
    """The result of the step `save`, with which a run has its model: a folder, or `hosted:NAME` (`external`)."""

    model: str
    digest: str
    external: bool
    job: str
    trained_tokens: int | None
    checkpoints: list[KeptCheckpoint]


class Report(TypedDict, total=False):
    """What `report.json` holds; that of an earlier version lacks some of it."""

    plan_id: str
    name: str
    status: str
    message: str
    metrics: dict[str, float]
    graded: list[str]
    model: Saved | None
    results: dict[str, Result]
    seconds: dict[str, float]
    started: float | None
    ended: float | None
    samples: list[dict[str, str]]
    versions: dict[str, str]
    plan: dict[str, object]


def last_values(records: Sequence[Record]) -> dict[str, float]:
    """Return the last value of each metric: that of its latest step, whenever it was heard."""
    measured = [record.event for record in records if isinstance(record.event, Metrics)]
    values: dict[str, float] = {}
    # Not as they were heard: a hosted job's events come late and out of order.
    for event in sorted(measured, key=lambda event: event.step):
        values |= event.values
    return values


def saved(result: Result) -> Saved:
    """Return the result of the step `save` by its fields. Raises `msgspec.ValidationError` for any other."""
    # Checked here, where it is read: the journal may be an earlier version's.
    return msgspec.convert(result, Saved)


def read(folder: Path) -> Report | None:
    """Return the report of a run's folder, if there is one."""
    return read_json(folder / REPORT, Report)
