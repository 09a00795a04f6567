"""What held-out rows say of two requests: the difference of a metric, how sure it is, and a sentence. Pure numbers.

The rows are the same on both sides, so each row is compared with itself: what makes a row hard falls out. The interval
is a bootstrap over rows, and over seeds where a request has several; with one seed each it holds for these two runs,
and the sentence says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runner import methods
from runner.compare.results import Result, Variant

CONFIDENCE = 0.95
POWER = 0.8
"""How surely the rows that are called enough would show a difference of the size seen."""
RESAMPLES = 10_000
AT_ONCE = 100
"""Resamples drawn at a time: some MB, however many rows there are."""
LEAST_ROWS = 10
"""With fewer rows no interval is worth anything."""
MOST = 1_000_000
"""More rows than that are nobody's."""

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
"""Values of a metric, (seeds, rows)."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much an variant's metric is above another's, with its interval, over so many rows and seeds each."""

    metric: str
    name: str
    other: str
    mean: float
    low: float
    high: float
    rows: int
    seeds: tuple[int, int]
    enough: int | None
    """Rows with which a difference of this size would show; None where there is none to show."""

    @property
    def significant(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.rows >= LEAST_ROWS and not self.low <= 0 <= self.high

    @property
    def better(self) -> bool:
        """Whether `name` is the better one, by more than chance."""
        return self.significant and (self.mean > 0) != lower_is_better(self.metric)

    @property
    def sentence(self) -> str:
        """Say in a sentence what came out."""
        metric = words(self.metric)
        if not self.rows:
            return f"{self.name} and {self.other} have judged no held-out row in common, so they cannot be compared"
        if self.low == self.high == 0:
            return (
                f"{self.name} and {self.other} come out alike in {metric} on each of {self.rows:,} rows; "
                "another metric may tell them apart"
            )
        if not self.significant:
            more = f"; about {self.enough:,} would be needed" if self.enough and self.enough > self.rows else ""
            return (
                f"no significant difference in {metric} between {self.name} and {self.other} with these "
                f"{self.rows:,} rows{more}"
            )
        winner, loser = (self.name, self.other) if self.better else (self.other, self.name)
        # Told from the winner's side, whichever that is.
        sign = 1 if self.better else -1
        low, high = sorted((sign * self.low, sign * self.high))
        alone = "" if min(self.seeds) > 1 else "; one seed each, another may come out otherwise"
        alone = alone if self.seeds == (1, 1) else alone.replace("one seed each", "one seed on a side")
        return (
            f"{winner} beats {loser}: {metric} {amount(self.metric, sign * self.mean, True)}, "
            f"{CONFIDENCE:.0%} interval {amount(self.metric, low)} to {amount(self.metric, high)}, "
            f"{self.rows:,} rows{alone}"
        )


def lower_is_better(metric: str) -> bool:
    """Say whether less of a metric is better."""
    return methods.metric(metric).lower_is_better


def words(metric: str) -> str:
    """Return a metric's name as it is said: `reward accuracy`, of what is no held-out row's `train loss`."""
    split, _, _ = metric.removeprefix("eval/").rpartition("/")
    return f"{split} {methods.metric(metric).label}".replace("/", " ").strip()


def amount(metric: str, value: float, signed: bool = False) -> str:
    """Return a difference as it is said: an accuracy's or a share's in points of a hundred."""
    sign = "+" if signed else ""
    if methods.metric(metric).is_share:
        return f"{100 * value:{sign}.1f}" + (" points" if signed else "")
    return f"{value:{sign}.3g}"


def compare(metric: str, one: Variant, other: Variant, seed: int = 0) -> Difference:
    """Return how far `one` is above `other` in a metric, over the held-out rows that all their runs have judged."""
    name = metric.rpartition("/")[2]
    judged = [having for run in (*one.runs, *other.runs) if (having := _having(run, name))]
    common = sorted(set.intersection(*judged)) if judged else []
    ours, theirs = (_matrix(each, name, common) for each in (one, other))
    if not common or not len(ours) or not len(theirs):
        common, ours, theirs = [], np.zeros((0, 0)), np.zeros((0, 0))
    low, high = interval(ours, theirs, seed) if common else (math.nan, math.nan)
    apart = ours.mean(0) - theirs.mean(0) if common else np.zeros(0)
    return Difference(
        metric=metric, name=one.name, other=other.name, mean=float(apart.mean()) if common else math.nan,
        low=low, high=high, rows=len(common), seeds=(len(ours), len(theirs)), enough=rows_needed(apart),
    )  # fmt: skip


def interval(ours: Matrix, theirs: Matrix, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the bootstrap interval of the mean difference of (seeds, rows) against (seeds, rows).

    Rows are drawn anew for both sides alike, seeds for each side by itself. The percentiles are those of Hesterberg
    2015 (arXiv:1411.5279, section 3.3, expanded by Student's t), as plain ones are too narrow for few rows.
    """
    from scipy import stats

    random, num_rows = np.random.default_rng(seed), ours.shape[1]
    if num_rows < 2:
        return -math.inf, math.inf
    both = np.concatenate((ours, theirs))
    weights = np.concatenate((_weights(random, len(ours), resamples), -_weights(random, len(theirs), resamples)), 1)
    means = np.empty(resamples)
    for start in range(0, resamples, AT_ONCE):
        drawn = random.integers(num_rows, size=(min(AT_ONCE, resamples - start), num_rows), dtype=np.uint32)
        part = slice(start, start + len(drawn))
        means[part] = (np.stack([values[drawn].mean(1) for values in both], 1) * weights[part]).sum(1)
    outside = stats.norm.cdf(math.sqrt(num_rows / (num_rows - 1)) * stats.t.ppf((1 - CONFIDENCE) / 2, num_rows - 1))
    low, high = np.quantile(means, [outside, 1 - outside])
    return float(low), float(high)


def _weights(random: np.random.Generator, num_seeds: int, resamples: int) -> Matrix:
    """Return each seed's weight in each resample, (resamples, seeds)."""
    return random.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), resamples) / num_seeds


def rows_needed(apart: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> int | None:
    """Return about how many rows would show a mean like that of these differences, two digits of it."""
    from scipy import stats

    if len(apart) < 2 or not apart.mean():
        return None
    reach = stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER)
    needed = (reach * apart.std(ddof=1) / apart.mean()) ** 2
    if not needed or needed > MOST:
        return None
    digits = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return int(math.ceil(needed / digits) * digits)


def rank(metric: str, all_of_them: Sequence[Variant]) -> list[Variant]:
    """Return variants that have a metric, the best first, by the mean over their seeds.

    Those that tie go by the held-out loss, then by name, so that the order does not hang on that of the runs.
    """
    sign = 1 if lower_is_better(metric) else -1

    def place(each: Variant) -> tuple[float, float, str]:
        losses = each.values("eval/loss")
        return sign * mean(each.values(metric)), mean(losses) if losses else math.inf, each.name

    return sorted((each for each in all_of_them if each.values(metric)), key=place)


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def spread(values: Sequence[float]) -> float | None:
    """Return the half width of the interval of a mean over seeds, by Student's t; None for a single one."""
    from scipy import stats

    if len(values) < 2:
        return None
    factor = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(factor * np.std(values, ddof=1) / math.sqrt(len(values)))


def _having(run: Result, name: str) -> set[str]:
    return {row for row, values in run.rows.items() if name in values}


def _matrix(variant: Variant, name: str, rows: Sequence[str]) -> Matrix:
    judged = [run for run in variant.runs if _having(run, name)]
    return np.array([[run.rows[row][name] for row in rows] for run in judged], dtype=np.float64)
