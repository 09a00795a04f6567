"""How far a judge can be trusted: compared with people's labels of some answers, and with itself. Pure numbers.

Every measure comes with a bootstrap interval over the rows, as a labelled set is small.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2_000
LEAST_ROWS = 10
"""With fewer rows no interval is worth anything."""

Label = str | float | bool
Values = np.ndarray[tuple[int], np.dtype[np.float64]]
Statistic = Callable[..., float]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A row that a person and the judge have labelled, and what else is known of it.

    Labels are anything that can be equal: a label, passed or not, or of a pair 1, 0 or 0.5. A score is made a label by
    a threshold first. `again` is the judge's label when asked with another seed; `first` and `second` are the parts of
    a pairwise grade. `length` is the answer's, of a pair how much longer the first answer is than the other.
    """

    label: Label
    verdict: Label
    again: Label | None = None
    first: float | None = None
    second: float | None = None
    length: float | None = None


@dataclass(frozen=True)
class Measure:
    """A value, its 95 % interval, and how many rows it is of; nan where the rows do not decide it."""

    value: float
    low: float
    high: float
    rows: int


def calibrate(rows: Sequence[Judged], seed: int = 0) -> dict[str, Measure]:
    """Return by name the measures that the rows have the fields for.

    `agreement`, `kappa`: judge and person. `self_agreement`, `self_kappa`: judge and judge, asked again.
    `order_changed`, `first_preferred`: `position_bias`. `longer_preferred`: `length_bias`, of labels that are numbers.
    """
    found = {"agreement": agreement([r.verdict for r in rows], [r.label for r in rows], seed)}
    found["kappa"] = kappa([r.verdict for r in rows], [r.label for r in rows], seed)
    twice = [(row.verdict, row.again) for row in rows if row.again is not None]
    if twice:
        one, other = [pair[0] for pair in twice], [pair[1] for pair in twice]
        found |= {"self_agreement": agreement(one, other, seed), "self_kappa": kappa(one, other, seed)}
    ordered = [(row.first, row.second) for row in rows if row.first is not None and row.second is not None]
    if ordered:
        found |= position_bias([pair[0] for pair in ordered], [pair[1] for pair in ordered], seed)
    long = [row for row in rows if row.length is not None and not isinstance(row.label, str)]
    if long:
        numbers = [(float(row.verdict), float(row.label), row.length or 0.0) for row in long]
        paired = len(ordered) == len(rows)
        found["longer_preferred"] = length_bias(*zip(*numbers, strict=True), paired=paired, seed=seed)
    return found


def agreement(one: Sequence[Label], other: Sequence[Label], seed: int = 0) -> Measure:
    """Return the share of rows with the same label on both sides."""
    codes = _codes(one, other)
    return _measured(lambda a, b: float(np.mean(a == b)), codes, seed)


def kappa(one: Sequence[Label], other: Sequence[Label], seed: int = 0) -> Measure:
    """Return Cohen's kappa: agreement beyond chance, 1 at most, 0 for chance.

    It is nan where both sides give one and the same label throughout: chance alone would agree as well.
    Cohen 1960, doi 10.1177/001316446002000104.
    """
    return _measured(_kappa, _codes(one, other), seed)


def position_bias(first: Sequence[float], second: Sequence[float], seed: int = 0) -> dict[str, Measure]:
    """Return what the order of two answers does; `first` and `second` are an answer's verdicts shown there, 0 to 1.

    `order_changed` is the share of pairs whose verdict changed. `first_preferred` is how much more the judge gives what
    it sees first: 0 for none, 1 where the first one always wins, -1 where the second one does.
    """
    both = np.array([first, second], dtype=np.float64)
    return {
        "order_changed": _measured(lambda a, b: float(np.mean(a != b)), both, seed),
        "first_preferred": _measured(lambda a, b: float(np.mean(a - b)), both, seed),
    }


def length_bias(
    verdicts: Sequence[float], labels: Sequence[float], lengths: Sequence[float], *, paired: bool, seed: int = 0
) -> Measure:
    """Return how much more the judge gives the longer answers than people do, compared with the shorter ones.

    It is the mean of verdict - label over the longer ones less that over the shorter ones: 0 where length does not
    count beyond what people make of it. Longer is above the median; of pairs (`paired`), where the first one is longer.
    Rows in between, with the median itself or two equal lengths, count on neither side.
    """
    middle = 0.0 if paired else float(np.median(lengths))

    def excess(verdict: Values, label: Values, length: Values) -> float:
        longer, shorter = length > middle, length < middle
        if not longer.any() or not shorter.any():
            return math.nan
        return float(np.mean((verdict - label)[longer]) - np.mean((verdict - label)[shorter]))

    return _measured(excess, np.array([verdicts, labels, lengths], dtype=np.float64), seed)


def _kappa(one: Values, other: Values) -> float:
    count = int(max(one.max(), other.max())) + 1
    shares = [np.bincount(codes.astype(np.int64), minlength=count) / len(codes) for codes in (one, other)]
    # Both label by their own shares, independently: what would agree then is no skill.
    by_chance = float(shares[0] @ shares[1])
    return math.nan if by_chance == 1 else (float(np.mean(one == other)) - by_chance) / (1 - by_chance)


def _codes(one: Sequence[Label], other: Sequence[Label]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return labels as numbers from zero, (2, rows); equal labels have the same number on both sides."""
    # In order of appearance: only equality counts, and labels of any kind become numbers once.
    number: Mapping[Label, int] = {label: code for code, label in enumerate(dict.fromkeys([*one, *other]))}
    return np.array([[number[label] for label in side] for side in (one, other)], dtype=np.float64)


def _measured(statistic: Statistic, columns: np.ndarray[tuple[int, int], np.dtype[np.float64]], seed: int) -> Measure:
    """Return a statistic of columns, (values, rows), and its bootstrap interval over the rows.

    The percentiles are expanded by Student's t (Hesterberg 2015, arXiv:1411.5279, section 3.3). Resamples of which the
    statistic is undefined are left out; with fewer than `LEAST_ROWS` rows the interval is nan.
    """
    from scipy import stats

    rows = columns.shape[1]
    if not rows:
        return Measure(math.nan, math.nan, math.nan, 0)
    value = statistic(*columns)
    if rows < LEAST_ROWS:
        return Measure(value, math.nan, math.nan, rows)
    # A seed, so that the same labels give the same interval each time.
    random = np.random.default_rng(seed)
    drawn = np.array([statistic(*columns[:, random.integers(rows, size=rows)]) for _ in range(RESAMPLES)])
    # A resample may hold one label only, and then has no kappa.
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Measure(value, math.nan, math.nan, rows)
    outside = stats.norm.cdf(math.sqrt(rows / (rows - 1)) * stats.t.ppf((1 - CONFIDENCE) / 2, rows - 1))
    low, high = np.quantile(drawn, [outside, 1 - outside])
    return Measure(value, float(low), float(high), rows)
