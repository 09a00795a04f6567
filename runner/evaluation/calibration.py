"""Graders measured by answers that people have labelled: what `python -m runner.evaluate --calibrate FILE` does.

A row is one of `evaluation.prompts` with two more keys, or three: `sample`, the answer; `label`, what a person made of
it; and for a pair `other`, the second answer. docs/judges.md has the labels.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isnan

from runner.data import problems
from runner.errors import DataError, RequestError
from runner.evaluation import configured
from runner.evaluation.grading import item_of
from runner.evaluation.judges import judge_of
from runner.graders import Grade, Grader, Json, Judge, Sample, Subject, templates
from runner.judging.calibrate import Judged, Measure, calibrate
from runner.judging.client import EndpointJudge, Reseeded
from runner.judging.keys import JudgeKeys
from runner.judging.price import Price, forecast
from runner.record.graded import Asked
from runner.record.samples import asked
from runner.request.keys import Request

SAMPLE, OTHER, LABEL = "sample", "other", "label"
"""The keys of a row that hold the answer, the second answer of a pair, and the label."""
OTHER_SEED = 1_000_003
"""Asked of a judge the second time; its grader's own seed hardly is the same."""
PASSES = 0.5
"""From where a score passes where a grader has no threshold."""
WON: Mapping[str, float] = {SAMPLE: 1.0, OTHER: 0.0, "tie": 0.5}
"""The labels of a pair."""
WANTED = {
    "agreement": "near that of two people", "kappa": "above 0.6", "self_agreement": "above agreement",
    "self_kappa": "above kappa", "order_changed": "below 0.2", "first_preferred": "interval holds 0",
    "longer_preferred": "interval holds 0",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The graders, and the labelled answers that they grade, by the file's rows."""

    rows: Sequence[Asked]
    graders: Sequence[Grader]
    keys: JudgeKeys


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """How a grader did: its measures by name (runner/judging/calibrate.py), of so many rows that have a grade."""

    grader: str
    rows: int
    measures: Mapping[str, Measure]
    warnings: tuple[str, ...] = ()


def plan(path: str, wanted: Sequence[str | Mapping[str, Json]], request: Request) -> Calibration:
    """Return the labelled answers of a file, and the graders by their names, files or configurations.

    Raises `RequestError` where no grader is named or one cannot work, `DataError` by file and line for a row that has
    no answer, or no label that the graders take.
    """
    if not wanted:
        raise RequestError("--calibrate: no grader is named; name one after the file, or set evaluation.graders.")
    graders = configured.named(wanted, "--calibrate")
    # Each row by its content: two answers to one question are two rows.
    rows = asked(problems.read(path), None, by_prompt=False)
    if not rows:
        raise DataError(f"--calibrate: {path} holds no row.")
    for grader in graders:
        for row in rows:
            _label(row, grader)
            if missing := templates.missing(list(grader.templates()), _subject(row, grader).item):
                raise DataError(f"{row.place}: grader {grader.name} names {', '.join(missing)}, which the row lacks.")
    return Calibration(rows=rows, graders=graders, keys=request.evaluation.judge)


def prices(planned: Calibration) -> dict[str, Price]:
    """Return by grader what asking its judge twice will take, where it asks one."""
    asking = [each for each in planned.graders if list(each.models())]
    with EndpointJudge(planned.keys) as judge:
        return {
            each.name: forecast(each, (_subject(row, each) for row in planned.rows), planned.keys, judge, (OTHER_SEED,))
            for each in asking
        }


def carry_out(planned: Calibration) -> list[Calibrated]:
    """Grade, each answer by each grader, twice where a judge is asked, and return how the graders did."""
    with judge_of(planned.keys, planned.graders) as judge:
        return [_calibrated(planned, grader, judge) for grader in planned.graders]


def table(found: Calibrated) -> tuple[list[str], list[list[str]]]:
    """Return the head and the lines of a grader's measures."""
    rows = [
        [name, _number(each.value), f"{_number(each.low)} to {_number(each.high)}", str(each.rows), WANTED[name]]
        for name, each in found.measures.items()
    ]
    return ["measure", "value", "95 % interval", "rows", "wanted"], rows


def _number(value: float) -> str:
    return "?" if isnan(value) else f"{value:.3f}"


def _calibrated(planned: Calibration, grader: Grader, judge: Judge | None) -> Calibrated:
    subjects = [_subject(row, grader) for row in planned.rows]
    grades = _grades(grader, subjects, judge, planned.keys.concurrency)
    again: Sequence[Grade | None] = [None] * len(grades)
    if judge is not None and list(grader.models()):
        again = _grades(grader, subjects, Reseeded(judge, OTHER_SEED), planned.keys.concurrency)
    judged = [
        _judged(row, grader, grade, other)
        for row, grade, other in zip(planned.rows, grades, again, strict=True)
        if grade.score is not None
    ]
    errors = [grade.error for grade in grades if grade.score is None]
    warnings = [f"{len(errors)} of {len(grades)} answers have no grade: {errors[0]}"] if errors else []
    if not grader.compares and grader.passing_score() is None:
        warnings.append(f"it has no pass_threshold, so a score of {PASSES:g} and more (of 0 to 1) passes")
    return Calibrated(
        grader=grader.name, rows=len(judged), measures=calibrate(judged) if judged else {}, warnings=tuple(warnings)
    )


def _grades(grader: Grader, subjects: Sequence[Subject], judge: Judge | None, at_once: int) -> list[Grade]:
    """Return a grade for each subject; those of a judge several at a time."""
    # As many threads as questions may be under way: more would only wait for the judge's own limit.
    with grader.grading(judge) as grade, ThreadPoolExecutor(at_once if grader.concurrent else 1) as pool:
        try:
            return list(pool.map(grade, subjects))
        finally:
            pool.shutdown(cancel_futures=True)


def _judged(row: Asked, grader: Grader, grade: Grade, again: Grade | None) -> Judged:
    verdict: Callable[[Grade], float | bool] = _score if grader.compares else lambda each: _passes(_score(each), grader)
    length = len(str(row.fields[SAMPLE])) - (len(str(row.fields[OTHER])) if grader.compares else 0)
    return Judged(
        label=_label(row, grader),
        verdict=verdict(grade),
        again=None if again is None or again.score is None else verdict(again),
        first=grade.parts.get("first"),
        second=grade.parts.get("second"),
        length=float(length),
    )


def _score(grade: Grade) -> float:
    assert grade.score is not None
    return grade.score


def _passes(score: float, grader: Grader) -> bool:
    threshold = grader.passing_score()
    return score >= (PASSES if threshold is None else threshold)


def _subject(row: Asked, grader: Grader) -> Subject:
    """Return a row's answer as a grader sees it, without what it is not to know: the label."""
    item = {key: value for key, value in item_of(row).items() if key not in (SAMPLE, OTHER, LABEL)}
    other = Sample(str(row.fields[OTHER])) if grader.compares else None
    return Subject(item, Sample(str(row.fields[SAMPLE])), other)


def _label(row: Asked, grader: Grader) -> float | bool:
    """Return what a person made of an answer: passed or not, or of a pair 1, 0 or 0.5 for the first one.

    Raises `DataError` by file and line for a row that says no such thing.
    """
    needed = (SAMPLE, OTHER, LABEL) if grader.compares else (SAMPLE, LABEL)
    for key in needed:
        if key not in row.fields or (key != LABEL and not isinstance(row.fields[key], str)):
            raise DataError(f"{row.place}: grader {grader.name} needs `{key}`; a row has {', '.join(needed)}.")
    label: Json = row.fields[LABEL]
    if grader.compares:
        if isinstance(label, str) and label in WON:
            return WON[label]
        raise DataError(f"{row.place}: label: got {label!r}; allowed: {', '.join(WON)}, which answer is better.")
    if isinstance(label, bool):
        return label
    passing, labels = getattr(grader, "passing_labels", None), getattr(grader, "labels", None)
    if passing and isinstance(label, str) and label in (labels or ()):
        return label in passing
    if isinstance(label, int | float) and grader.pass_threshold is not None:
        return label >= grader.pass_threshold
    own = ", " + ", ".join(labels) if labels else ""
    own += ", a number where the grader has a pass_threshold" * isinstance(label, int | float)
    raise DataError(f"{row.place}: label: got {label!r}; allowed: true (the answer passes), false{own}.")
