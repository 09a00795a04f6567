"""How fast runs of the same kind went in the same folder of runs: what a plan's time to train follows from."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.record import layout

if TYPE_CHECKING:
    from runner.plan import Run


def tokens_per_second(run: "Run") -> float | None:
    """Return the tokens a second of the latest run of the same model, method and tuning."""
    speeds = (report.metrics.get("system/tokens_per_second") for report in _alike(run))
    return next((speed for speed in speeds if speed), None)


def rollouts_seconds(run: "Run", num_steps: int) -> float | None:
    """Return how long the rollouts of so many steps take, evaluations on the way included.

    By the seconds that the latest run with the same grader took for an answer: sampled, graded, learned from.
    """
    keys = run.hyperparameters
    for report in _alike(run):
        known, took = report.plan.hyperparameters, report.metrics.get("system/seconds_per_rollout")
        # A judge takes a second for what a rule takes a microsecond; answers have other lengths by another limit.
        alike = all(known.get(key) == getattr(keys, key) for key in ("grader", "max_new_tokens"))
        if took and alike:
            then = msgspec.convert(known, _Answers)
            factor = keys.batch_size * keys.group_size / (then.batch_size * then.group_size)
            return float(took * factor * -(-num_steps // keys.updates_per_rollout))
    return None


class _Model(msgspec.Struct, frozen=True):
    digest: str


class _Answers(msgspec.Struct, frozen=True):
    batch_size: int
    group_size: int


class _Plan(msgspec.Struct, frozen=True):
    """Of a plan what decides how fast it is learned, as far as runs are compared by it."""

    model: _Model
    method: str
    settings: dict[str, object]
    hyperparameters: dict[str, object] = {}


class _Report(msgspec.Struct, frozen=True):
    """Of a report what the pace follows from; the rest, of many runs, is not decoded."""

    metrics: dict[str, float]
    plan: _Plan


def _alike(run: "Run") -> Iterator[_Report]:
    """Yield the reports of runs of the same model, method and tuning in this folder of runs, the latest first."""
    runs, plan = Path(run.request.runs_folder), run.plan
    if not runs.exists():
        return
    wanted = plan.model.digest, plan.method, plan.settings.get("tuning")
    for report in _reports(runs, runs.stat().st_mtime_ns):
        found = report.plan
        if (found.model.digest, found.method, found.settings.get("tuning")) == wanted:
            yield report


@lru_cache(1)
def _reports(runs: Path, changed: int) -> list[_Report]:
    """Return the reports of all runs, the latest first; read once for all trials, while the folder is the same."""
    paths = sorted(runs.glob(f"*/{layout.REPORT}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [msgspec.json.decode(path.read_bytes(), type=_Report) for path in paths]
