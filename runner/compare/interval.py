"""How sure a mean difference over rows is: its interval at any confidence, its p-value, the rows that would decide.

A row has one difference, and the interval is Student's with two rows added, one on each side: for scores of 0 or 1 that
is Agresti and Min's interval for matched pairs, which holds where few rows differ and Wald's does not. Where a side has
several seeds, what they differ by comes on top. docs/comparison.md has the coverage as measured, also of the bootstraps
that were tried.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8
"""How surely the rows that are called enough would show a difference of the size seen."""
MOST = 1_000_000
"""More rows than that are nobody's."""

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
"""Values of a metric, (seeds, rows)."""
Vector = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Estimate:
    """A mean difference whose distance from the true one, in standard errors, is distributed as Student's t."""

    centre: float
    error: float
    freedom: float
    largest: float = math.inf
    """The largest difference that there can be: 1 between shares."""

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the two-sided interval of the mean difference."""
        from scipy import special

        reach = float(special.stdtrit(self.freedom, (1 + confidence) / 2)) * self.error
        # Of 40 rows that all turn from 0 to 1 it would reach 103 points.
        return max(self.centre - reach, -self.largest), min(self.centre + reach, self.largest)

    @property
    def p(self) -> float:
        """Return the two-sided p-value of no difference: an interval leaves out zero just where its rest is above p."""
        from scipy import special

        if not self.error:
            # Every row differs by the same: by nothing, or surely by something.
            return float(not self.centre)
        return float(2 * special.stdtr(self.freedom, -abs(self.centre) / self.error))


def estimate(ours: Matrix, theirs: Matrix) -> Estimate:
    """Return what (seeds, rows) against (seeds, rows) of the same two or more rows say of the mean difference.

    Variances of rows and of seeds add up; the degrees of freedom are Satterthwaite's 1946 (Biometrics Bulletin 2,
    110-114), so that two seeds that differ much leave little known.
    """
    num_rows = ours.shape[1]
    shares = binary(ours) and binary(theirs)
    centre, of_rows = centred(ours.mean(0) - theirs.mean(0), shares)
    largest = 1.0 if shares else math.inf
    parts = [(of_rows, num_rows - 1), *((of_seeds(each), len(each) - 1) for each in (ours, theirs) if len(each) > 1)]
    total = sum(variance for variance, _ in parts)
    if not total:
        return Estimate(centre, 0.0, num_rows - 1, largest)
    # Of two seeds that differ much little more than one degree is left, so that the interval is wide.
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    return Estimate(centre, math.sqrt(total), freedom, largest)


def binary(values: Matrix) -> bool:
    """Say whether all values are 0 or 1, of one run."""
    return len(values) == 1 and bool(((values == 0) | (values == 1)).all())


def centred(apart: Vector, zero_or_one: bool) -> tuple[float, float]:
    """Return centre and variance of the mean of the differences of rows, two rows added.

    Agresti and Min 2005 (Statistics in Medicine 24, 729-740) add one half to each cell of a two by two table: two rows
    more, on both sides of zero, whose squares sum to 1. Of other scores they are on both sides of the mean, and their
    squares sum to that of the row furthest from it.
    """
    # Of 300 rows that all come out alike, 0.7 points either way are left; a plain variance would be 0.
    num_rows = len(apart) + 2
    if zero_or_one:
        centre = float(apart.sum()) / num_rows
        return centre, (float((apart**2).sum() + 1) / num_rows - centre**2) / num_rows
    # Those of a loss may all be far from zero: what is added is spread, and must not pull towards zero.
    mean = float(apart.mean())
    squares = (apart - mean) ** 2
    return mean, float(squares.sum() + squares.max()) / (num_rows - 1) / num_rows


def of_seeds(values: Matrix) -> float:
    """Return the variance that seeds add to the mean of (seeds, rows), beyond that of their rows; 0 at least.

    What a seed does to single rows is in the differences of rows already, and taken off here: variance components of a
    table of rows by seeds.
    """
    seeds, num_rows = values.shape
    # Measured with three seeds that do not differ: the interval holds in 97 % of cases, the bootstrap over both ways
    # that was used before in 99.5 (docs/comparison.md, Owen 2007).
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    of_cells = float((rest**2).sum()) / ((seeds - 1) * (num_rows - 1))
    # Where seeds do nothing, chance alone makes the first smaller than the second about half of the time.
    return max(0.0, float(values.mean(1).var(ddof=1)) - of_cells / num_rows) / seeds


def rows_needed(apart: Vector, against: float = 0.0, confidence: float = CONFIDENCE) -> int | None:
    """Return about how many rows would distinguish the mean of these differences from a value, two digits of it.

    None where there is nothing to distinguish, or no number of rows would do.
    """
    from scipy import special

    if len(apart) < 2 or apart.mean() == against:
        return None
    # The normal, not Student's: the rows that are asked for are many.
    reach = float(special.ndtri((1 + confidence) / 2) + special.ndtri(POWER))
    needed = (reach * apart.std(ddof=1) / (apart.mean() - against)) ** 2
    if not 0 < needed <= MOST:
        return None
    # Two digits: the spread of few rows is rough itself, and a precise number would claim more.
    digits = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return int(math.ceil(needed / digits) * digits)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several: Holm 1979 (Scandinavian Journal of Statistics 6, 65-70)."""
    corrected, so_far = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        # The smallest times all, the next times one fewer; never below one that came before it.
        so_far = max(so_far, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = so_far
    return corrected
