"""What held-out rows say of two variants: the difference of a metric and how sure it is. Pure numbers.

The rows are the same on both sides, so each row is compared with itself: what makes a row hard falls out. A row that
was answered several times has the mean of its scores: answers to one prompt are no independent rows. With one seed each
the interval holds for these two runs, and the sentence says so. interval.py has the numbers, sentences.py the words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from runner.compare.interval import CONFIDENCE, Estimate, Matrix, Vector, estimate, holm, rows_needed
from runner.compare.results import Result, Variant, kind
from runner.methods import Metric, metric

LEAST_ROWS = 10
"""With fewer rows no interval is worth anything."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much a variant's metric is above another's, with its interval, over so many rows and seeds each.

    Of several that are read together (`family` of them) `p` is Holm's, and the interval holds for all at once.
    """

    metric: str
    kind: Metric
    name: str
    other: str
    mean: float
    low: float
    high: float
    p: float
    rows: int
    seeds: tuple[int, int]
    apart: Vector = field(repr=False, compare=False)
    """The difference of each row, the mean over seeds."""
    estimate: Estimate | None = field(repr=False, compare=False)
    """None with fewer than two rows."""
    family: int = 1
    margin: float | None = None
    """What counts as no worse."""

    @property
    def significant(self) -> bool:
        """Whether there is a difference, by more than chance."""
        return self.rows >= LEAST_ROWS and self.p < 1 - CONFIDENCE

    @property
    def better(self) -> bool:
        """Whether `name` is the better one, by more than chance."""
        return self.significant and (self.mean > 0) != self.kind.lower_is_better

    @property
    def confidence(self) -> float:
        """The confidence of this interval alone, with which all of its family hold together."""
        return 1 - (1 - CONFIDENCE) / self.family

    @property
    def enough(self) -> int | None:
        """Rows with which a difference of this size would show; None where there is none to show."""
        return rows_needed(self.apart, confidence=self.confidence)

    @property
    def worst(self) -> float:
        """How far `name` may be behind at worst, by the interval; negative where it is ahead for sure."""
        return self.high if self.kind.lower_is_better else -self.low

    @property
    def no_worse(self) -> bool:
        """Whether `name` is for sure behind by less than the margin, if at all."""
        return self.margin is not None and self.rows >= LEAST_ROWS and self.worst < self.margin

    @property
    def turned(self) -> "Difference":
        """The same, seen from the other side."""
        return replace(
            self, name=self.other, other=self.name, mean=-self.mean, low=-self.high, high=-self.low,
            seeds=self.seeds[::-1], apart=-self.apart,
        )  # fmt: skip


def lower_is_better(name: str) -> bool:
    """Say whether less of a metric is better, by its name alone; of a grader more always is."""
    return metric(name).lower_is_better


def compare(metric: str, one: Variant, other: Variant) -> Difference:
    """Return how far `one` is above `other` in a metric, over the held-out rows that all their runs have judged."""
    # What was measured in training has another prefix, which no row has: there are no rows to compare by.
    name = metric.removeprefix("eval/")
    # A run without the metric does not empty the set: the other seeds of its variant speak for it.
    judged = [having for run in (*one.runs, *other.runs) if (having := _having(run, name))]
    common = sorted(set.intersection(*judged)) if judged else []
    ours, theirs = (_matrix(each, name, common) for each in (one, other))
    if not common or not len(ours) or not len(theirs):
        common, ours, theirs = [], np.zeros((0, 0)), np.zeros((0, 0))
    apart = ours.mean(0) - theirs.mean(0) if common else np.zeros(0)
    found = Difference(
        metric=metric, kind=kind(metric, (*one.runs, *other.runs)), name=one.name, other=other.name,
        mean=float(apart.mean()) if common else math.nan, low=-math.inf, high=math.inf, p=1.0, rows=len(common),
        seeds=(len(ours), len(theirs)), apart=apart, estimate=None,
    )  # fmt: skip
    if len(common) < 2:
        return found
    made = estimate(ours, theirs)
    low, high = made.interval()
    return replace(found, low=low, high=high, p=made.p, estimate=made)


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """Return differences that are read together, corrected for being several; what has too few rows does not count.

    P-values are Holm's. Intervals are Bonferroni's, which hold for all at once; one that reaches zero where Holm's
    steps, which find more, have decided the direction ends there (Strassburger and Bretz 2008, Statistics in Medicine
    27, 4914-4927).
    """
    # What cannot be decided anyway would only widen the intervals of the others.
    read = [each for each in differences if each.estimate and each.rows >= LEAST_ROWS]
    if len(read) < 2:
        return list(differences)
    p_values = dict(zip(map(id, read), holm([each.p for each in read]), strict=True))
    return [_together(each, p_values[id(each)], len(read)) if id(each) in p_values else each for each in differences]


def _together(each: Difference, p: float, family: int) -> Difference:
    found = replace(each, p=p, family=family)
    assert found.estimate is not None
    low, high = found.estimate.interval(found.confidence)
    if found.significant:
        # Holm has decided the direction, Bonferroni's wider interval may still reach across zero.
        low, high = (max(low, 0.0), high) if each.mean > 0 else (low, min(high, 0.0))
    return replace(found, low=low, high=high)


def rank(metric: str, all_of_them: Sequence[Variant]) -> list[Variant]:
    """Return variants that have a metric, the best first, by the mean over their seeds.

    Those that tie go by the held-out loss, then by name, so that the order does not depend on that of the runs.
    """
    sign = 1 if kind(metric, [run for each in all_of_them for run in each.runs]).lower_is_better else -1

    def place(each: Variant) -> tuple[float, float, str]:
        # By the loss, which is seldom equal: accuracies of few rows often are.
        losses = each.values("eval/loss")
        return sign * mean(each.values(metric)), mean(losses) if losses else math.inf, each.name

    return sorted((each for each in all_of_them if each.values(metric)), key=place)


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def spread(values: Sequence[float]) -> float | None:
    """Return the half width of the interval of a mean over seeds, by Student's t; None for a single one."""
    from scipy import special

    if len(values) < 2:
        return None
    factor = special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)
    return float(factor * np.std(values, ddof=1) / math.sqrt(len(values)))


def _having(run: Result, name: str) -> set[str]:
    return {row for row, values in run.rows.items() if name in values}


def _matrix(variant: Variant, name: str, rows: Sequence[str]) -> Matrix:
    judged = [run for run in variant.runs if _having(run, name)]
    return np.array([[run.rows[row][name] for row in rows] for run in judged], dtype=np.float64)
