"""What a run's folder says of it once there is something to compare: its configuration, metrics and judged rows.

Runs that differ in nothing but their seed are one variant of a comparison: what sets them apart is chance.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from runner import plan, planning
from runner.errors import RequestError
from runner.execution import report
from runner.plan import Run
from runner.record import journal
from runner.record.events import Metrics

Rows = dict[str, dict[str, float]]
"""Values by name, of each held-out row by its id, and of each prompt that was answered by its hash."""

DATA = "dataset.fingerprint"
"""The key of what the rows are: files may hold others by now, and other keys may come to the same ones."""
IGNORED = ("seed", "model.digest", *(f"dataset.{key}" for key in plan.DATA))
"""What does not tell one request from another."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A run: how it ended, the last value of each metric, the curve of each, and its held-out rows one by one."""

    folder: Path
    plan_id: str
    status: str
    message: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    rows: Rows
    seconds: Mapping[str, float]
    """What each step took."""

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.params["seed"])

    @property
    def request(self) -> dict[str, Any]:
        """Its configuration but for the seed."""
        return {key: value for key, value in self.params.items() if key not in IGNORED}


@dataclass(frozen=True)
class Variant:
    """A request that takes part in a comparison, with a run for each seed; `name` says what sets it apart."""

    name: str
    runs: tuple[Result, ...]

    def values(self, metric: str) -> list[float]:
        """Return a metric of each finished run that has it as a number: half a run is no figure of a request's."""
        values = (run.metrics.get(metric, math.nan) for run in self.runs if run.status == "finished")
        return [value for value in values if math.isfinite(value)]


def read(folder: Path) -> Result:
    """Return what a run's folder holds. Raises `RequestError` where it was never begun."""
    run = planning.load(folder)
    records = journal.read(folder / "journal.jsonl")
    content = report.read(folder) or {}
    return Result(
        folder=folder,
        plan_id=run.plan.id,
        status=content.get("status", "unfinished"),
        message=content.get("message", ""),
        params=plan.flat_params(run) | {DATA: _rows_of(run)},
        metrics=report.last_values(records),
        curves=_curves([record.event for record in records if isinstance(record.event, Metrics)]),
        rows=_rows(folder / "evaluation.jsonl") | _rows(folder / "in_style.jsonl"),
        seconds=content.get("seconds") or {},
    )


def _rows_of(run: Run) -> str:
    """Return what tells a run's rows, all splits of them, from others."""
    return " ".join(split.fingerprint[:8] for split in (run.plan.train, run.plan.validation) if split)


def _curves(events: Iterable[Metrics]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, dict[int, float]] = {}
    for event in events:
        for name, value in event.values.items():
            found.setdefault(name, {})[event.step] = value
    return {name: sorted(points.items()) for name, points in found.items()}


def _rows(path: Path) -> Rows:
    if not path.exists():
        return {}
    lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return {line.pop("row"): line for line in lines}


def differing(results: Sequence[Result]) -> list[str]:
    """Return the keys, but for the seed, in which runs differ, in the order in which a plan has them.

    What only some have at all follows from the method or the backend. Where the rows are others, the keys are named
    that say why; the rows themselves where there is no such key, and one method.
    """
    keys = dict.fromkeys(key for result in results for key in result.params)
    found = [key for key in keys if len({repr(each.params[key]) for each in results if key in each.params}) > 1]
    why = [key for key in found if key in IGNORED and key.startswith("dataset.")] if DATA in found else []
    unsaid = DATA in found and not why and "method" not in found
    return [*(key for key in found if key not in IGNORED and key != DATA), *why, *([DATA] if unsaid else [])]


def variants(results: Sequence[Result]) -> list[Variant]:
    """Put runs together that differ in their seed only; unique names say the keys in which the requests differ.

    Raises `RequestError` where there is nothing to compare.
    """
    if not results:
        raise RequestError("compare: no run is named; name runs or a sweep, python -m runner.compare RUN RUN.")
    keys = differing(results)
    together: dict[str, list[Result]] = {}
    for result in results:
        together.setdefault(repr(sorted(map(repr, result.request.items()))), []).append(result)
    names = [_name(runs[0], keys) for runs in together.values()]
    taken = Counter(names)
    return [
        Variant(
            name if taken[name] == 1 else f"{name} ({runs[0].folder.name})", tuple(sorted(runs, key=attrgetter("seed")))
        )
        for name, runs in zip(names, together.values(), strict=True)
    ]


def _name(result: Result, keys: Sequence[str]) -> str:
    told = [f"{key}={result.params[key]}" for key in keys if key in result.params]
    return ", ".join(told) or result.folder.name
