"""What a folder says once there is something to compare: configuration, metrics, judged rows of a run or of models.

Runs that differ in nothing but their seed are one variant of a comparison: what sets them apart is chance. An
evaluation's folder (`python -m runner.evaluate`) holds a variant for each of its models.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from runner import methods, plan, planning
from runner.errors import RequestError
from runner.methods import Metric
from runner.plan import Run
from runner.record import files, graded, journal, layout, outcome
from runner.record.events import Metrics
from runner.record.graded import AnswerGrade

Rows = dict[str, dict[str, float]]
"""Values by name, of each held-out row by its id, and scores by grader of each row that was answered."""

TUNED = "tuned"
"""The model of a run's answers that is compared; the other one is the base model."""
TIE = 0.5
"""What an answer is worth compared with itself."""
DATA = "dataset.fingerprint"
"""The key of what the rows are: files may hold others by now, and other keys may select the same ones."""
IGNORED = ("seed", "model.digest", *(f"dataset.{key}" for key in plan.DATA))
"""What does not distinguish one request from another."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A run: how it ended, the last value of each metric, the curve of each, and its held-out rows one by one."""

    folder: Path
    plan_id: str
    status: str
    message: str
    params: Mapping[str, object]
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    rows: Rows
    seconds: Mapping[str, float]
    """What each step took."""
    model: str = TUNED
    """What answers and grades in the folder call it."""
    graders: tuple[str, ...] = ()
    """Whose scores there are, in the order in which they were asked for."""
    binary: frozenset[str] = frozenset()
    """The graders among them that gave nothing but 0 or 1."""

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return msgspec.convert(self.params["seed"], int)

    @property
    def request(self) -> dict[str, object]:
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
    # From the journal and not the report: a run that was killed, or still runs, has none, or an old one.
    records = journal.read(folder / layout.JOURNAL)
    content = outcome.read(folder) or {}
    grades = [each for each in graded.read(folder / graded.GRADES, AnswerGrade) if each.model == TUNED]
    scores = _scores(folder, grades, TUNED)
    return Result(
        folder=folder,
        plan_id=run.plan.id,
        status=content.get("status", "unfinished"),
        message=content.get("message", ""),
        params=plan.flat_params(run) | {DATA: _rows_of(run)},
        metrics=_means(scores) | outcome.last_values(records),
        curves=_curves([record.event for record in records if isinstance(record.event, Metrics)]),
        # Runs of earlier versions have the share of answers in style in a file of its own.
        rows=_together(_rows(folder / layout.HELD_OUT), _rows(folder / layout.IN_STYLE), scores),
        seconds=content.get("seconds") or {},
        graders=tuple(dict.fromkeys(each.grader for each in grades)),
        binary=_binary(grades),
    )


def read_all(folder: Path) -> list[Result]:
    """Return what a folder holds: a run, or each model of an evaluation."""
    return read_models(folder) if (folder / layout.EVALUATION).exists() else [read(folder)]


class _Evaluation(msgspec.Struct):
    """What is read of `evaluation.json`."""

    models: list[str]


def read_models(folder: Path) -> list[Result]:
    """Return each model whose answers are graded in a folder: those of an evaluation, or a run's `base` and `tuned`.

    Raises `RequestError` where nothing was graded.
    """
    grades = graded.read(folder / graded.GRADES, AnswerGrade)
    if not grades:
        raise RequestError(
            f"{folder}: {graded.GRADES} not found or empty; runner.evaluate with evaluation.graders=[…] writes it."
        )
    path = folder / layout.EVALUATION
    named = [name for name in graded.SIDES if any(each.model == name for each in grades)]
    # In the order they were named: the first is the one that others are compared with.
    evaluation = files.read_json(path, _Evaluation)
    models = evaluation.models if evaluation else named
    grades = [*grades, *_ties(grades, models[0])]
    return [_model(folder, name, [each for each in grades if each.model == name]) for name in models]


def _ties(grades: Sequence[AnswerGrade], first: str) -> list[AnswerGrade]:
    """Return the grades of the first model by graders that compare the others' answers with its own: each is a tie.

    So a win rate is compared with a half, row by row as any other score.
    """
    has = {each.grader for each in grades if each.model == first}
    rows = {(each.row, each.grader) for each in grades if each.grader not in has and each.score is not None}
    return [AnswerGrade(model=first, row=row, grader=grader, score=TIE) for row, grader in sorted(rows)]


def _model(folder: Path, name: str, grades: Sequence[AnswerGrade]) -> Result:
    scores = _scores(folder, grades, name)
    return Result(
        folder=folder, plan_id="", status="finished", message="", curves={}, rows=scores, seconds={}, model=name,
        params={"model": name, "evaluation": str(folder), "seed": 0}, metrics=_means(scores),
        graders=tuple(dict.fromkeys(each.grader for each in grades)), binary=_binary(grades),
    )  # fmt: skip


def _scores(folder: Path, grades: Sequence[AnswerGrade], model: str) -> Rows:
    """Return a model's scores by row and grader; of a mixture also as `SOURCE/GRADER`, so that sources compare, too."""
    rows = graded.read(folder / graded.PROBLEMS, graded.Asked)
    return graded.by_source(graded.row_scores(grades, model), rows)


def _means(scores: Rows) -> dict[str, float]:
    names = dict.fromkeys(name for row in scores.values() for name in row)
    values = {name: [row[name] for row in scores.values() if name in row] for name in names}
    return {f"eval/{name}": sum(each) / len(each) for name, each in values.items()}


def _binary(grades: Iterable[AnswerGrade]) -> frozenset[str]:
    grades = list(grades)
    return frozenset(each.grader for each in grades) - {
        each.grader for each in grades if each.score not in (None, 0, 1)
    }


def _together(*parts: Rows) -> Rows:
    """Return the values of each row from all parts; of a value that several have, the last one's."""
    found: Rows = {}
    for row, values in (pair for part in parts for pair in part.items()):
        found.setdefault(row, {}).update(values)
    return found


def graders(results: Sequence[Result]) -> list[str]:
    """Return the metrics of the graders that all have, as `eval/GRADER`, in the order of the first."""
    return [f"eval/{name}" for name in results[0].graders if all(name in each.graders for each in results)]


def kind(metric: str, results: Iterable[Result]) -> Metric:
    """Return how a metric is said and which direction is better; of a grader more always is, whatever its name."""
    name = metric.removeprefix("eval/")
    graded_by = [each for each in results if name in each.graders]
    known = methods.metric(metric)
    if not graded_by:
        return known
    label = known.label if name in methods.metrics() else name.replace("_", " ")
    return Metric(name, label, is_share=all(name in each.binary for each in graded_by))


def _rows_of(run: Run) -> str:
    """Return what distinguishes a run's rows, all splits of them, from others."""
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
    lines = [files.decoded(path, line, dict[str, Any]) for line in path.read_bytes().splitlines()]
    return {line.pop("row"): line for line in lines}


def differing(results: Sequence[Result]) -> list[str]:
    """Return the keys, but for the seed, in which runs differ, in the order in which a plan has them.

    What only some have at all follows from the method or the backend. Where the rows are others, the keys are named
    that say why; the rows themselves where there is no such key, and one method.
    """
    keys = dict.fromkeys(key for result in results for key in result.params)
    found = [key for key in keys if len({repr(each.params[key]) for each in results if key in each.params}) > 1]
    # Rows may differ though every key is equal (the file has changed), or be equal though keys differ (a copy).
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
        # repr distinguishes 1 from 1.0 and "1": other values are another request, even where they compare as equal.
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
    settings = [f"{key}={result.params[key]}" for key in keys if key in result.params]
    return ", ".join(settings) or result.folder.name
