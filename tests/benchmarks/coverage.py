"""`python -m tests.benchmarks.coverage`: how often the intervals of a comparison hold the truth, on simulated grades.

Two models answer the same rows; what makes a row hard strikes both. A model's chance of a good answer to a row is
Phi(level + hardness), so that its mean is known exactly; a score is 0 or 1 with that chance, or Beta around it. Prints
the tables of docs/comparison.md, in about a minute on one core; with `--others` that of the intervals that were tried.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from runner.compare.difference import Difference, corrected
from runner.compare.interval import Matrix, estimate
from runner.methods import Metric

TRIALS = 2000
"""Which puts a share of 95 % within half a point, as a standard error."""
LEVELS = ((0.5, 0.6), (0.8, 0.9), (0.9, 0.9), (0.95, 0.98))
"""Mean scores of the two models."""
ROWS = (30, 60, 100, 200, 500)


@dataclass(frozen=True)
class Cell:
    """What is simulated: the kind of score, samples of a row, the two models' mean scores, rows, and seeds each.

    `spread` is how far seeds are apart, as the standard deviation of the level next to a hardness of 1.
    """

    kind: str
    samples: int
    levels: tuple[float, float]
    rows: int
    seeds: int = 1
    spread: float = 0.0

    @property
    def truth(self) -> float:
        """The true difference."""
        return self.levels[1] - self.levels[0]


def scores(random: np.random.Generator, cell: Cell, hard: Matrix, level: float) -> Matrix:
    """Return scores of a model, (trials, seeds, rows), the mean over samples; `hard` is (trials, rows)."""
    shape = (len(hard), cell.seeds, cell.rows, cell.samples)
    seeds = cell.spread * random.normal(size=(len(hard), cell.seeds, 1))
    chance = stats.norm.cdf(hard[:, None] + seeds + math.sqrt(2 + cell.spread**2) * stats.norm.ppf(level))[..., None]
    if cell.kind == "binary":
        return (random.random(shape) < chance).mean(3)  # type: ignore[no-any-return]
    inside = np.clip(chance, 1e-6, 1 - 1e-6)
    return random.beta(4 * inside, 4 * (1 - inside), shape).mean(3)  # type: ignore[no-any-return]


def pairs(
    cell: Cell, random: np.random.Generator, trials: int, hard: Matrix | None = None
) -> Iterator[tuple[Matrix, Matrix]]:
    """Yield scores of the better and of the other model, (seeds, rows), for each trial."""
    hard = random.normal(size=(trials, cell.rows)) if hard is None else hard
    theirs, ours = (scores(random, cell, hard, level) for level in cell.levels)
    yield from zip(ours, theirs, strict=True)


def coverage(cell: Cell, trials: int = TRIALS, seed: int = 0) -> float:
    """Return the share of trials in which the 95 % interval holds the true difference."""
    held = 0
    for ours, theirs in pairs(cell, np.random.default_rng(seed), trials):
        low, high = estimate(ours, theirs).interval()
        held += low <= cell.truth <= high
    return held / trials


def family(cells: list[Cell], trials: int = TRIALS, seed: int = 0) -> tuple[float, float]:
    """Return in how many trials the intervals of several metrics hold together, and where a wrong one is reported.

    Reported wrongly is a significant difference that is none, or has the other sign.
    """
    random, held, wrong = np.random.default_rng(seed), 0, 0
    hard = random.normal(size=(trials, cells[0].rows))
    # Graders of the same answers agree in part: half of what makes a row hard is common to all.
    each = [pairs(cell, random, trials, (hard + random.normal(size=hard.shape)) / math.sqrt(2)) for cell in cells]
    for metrics in zip(*each, strict=True):
        found = corrected([_difference(*values) for values in metrics])
        held += all(one.low <= cell.truth <= one.high for one, cell in zip(found, cells, strict=True))
        wrong += any(one.significant and one.mean * cell.truth <= 0 for one, cell in zip(found, cells, strict=True))
    return held / trials, wrong / trials


def no_worse(cell: Cell, trials: int = TRIALS) -> float:
    """Return in how many trials the other model is called no worse by more than exactly what it is worse."""
    reported = 0
    for ours, theirs in pairs(cell, np.random.default_rng(0), trials):
        reported += estimate(theirs, ours).interval()[0] > -cell.truth
    return reported / trials


def others(cell: Cell, trials: int = TRIALS, resamples: int = 1000) -> dict[str, float]:
    """Return the coverage of intervals that are not used, by name, with the same resamples for all trials.

    Percentiles are expanded as in Hesterberg 2015 (arXiv:1411.5279, 3.3); rows and seeds are drawn again.
    """
    random, count = np.random.default_rng(0), cell.rows
    ours, theirs = map(np.array, zip(*pairs(cell, random, trials), strict=True))
    rows = random.multinomial(count, np.full(count, 1 / count), resamples) / count
    seeds = [random.multinomial(cell.seeds, np.full(cell.seeds, 1 / cell.seeds), resamples) / cell.seeds for _ in "12"]
    drawn = [
        np.einsum("tsb,bs->tb", side @ rows.T, weights) for side, weights in zip((ours, theirs), seeds, strict=True)
    ]
    means, apart = drawn[0] - drawn[1], ours.mean(1) - theirs.mean(1)
    mean, error = apart.mean(1), apart.std(1, ddof=1) / math.sqrt(count)
    reach = stats.t.ppf(0.975, count - 1)
    outside = stats.norm.cdf(-math.sqrt(count / (count - 1)) * reach)
    found = {"Student": (mean - reach * error, mean + reach * error)}
    found["percentiles"] = tuple(np.quantile(means, [outside, 1 - outside], axis=1))
    errors = np.sqrt(np.maximum((apart**2) @ rows.T - (apart @ rows.T) ** 2, 0) / (count - 1))
    far = np.abs(apart @ rows.T - mean[:, None]) / np.where(errors > 0, errors, np.inf)
    reach = np.quantile(far, 0.95, axis=1)
    found["bootstrap-t"] = (mean - reach * error, mean + reach * error)
    return {name: float(((low <= cell.truth) & (cell.truth <= high)).mean()) for name, (low, high) in found.items()}


def _difference(ours: Matrix, theirs: Matrix) -> Difference:
    made, apart = estimate(ours, theirs), (ours - theirs).mean(0)
    low, high = made.interval()
    return Difference(
        metric="", kind=Metric("", ""), name="", other="", mean=float(apart.mean()), low=low, high=high, p=made.p,
        rows=len(apart), seeds=(1, 1), apart=apart, estimate=made,
    )  # fmt: skip


def _line(*cells: object) -> None:
    print("|", " | ".join(f"{100 * each:.1f}" if isinstance(each, float) else str(each) for each in cells), "|")


def _head(*cells: str) -> None:
    print()
    _line(*cells)
    _line(*["---"] * len(cells))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--others", action="store_true", help="print the intervals that were tried instead")
    asked = parser.parse_args()
    if asked.others:
        return _tried(asked.trials)
    trials = asked.trials
    _head("scores", "samples", "true means", *(f"{rows} rows" for rows in ROWS))
    for kind, samples in (("binary", 1), ("binary", 4), ("continuous", 1), ("continuous", 4)):
        for levels in LEVELS:
            _line(kind, samples, "{} and {}".format(*levels),
                  *(coverage(Cell(kind, samples, levels, rows), trials) for rows in ROWS))  # fmt: skip
    _head("several seeds, 0.5 and 0.6", "seeds each", "seeds apart", *(f"{rows} rows" for rows in (30, 100, 500)))
    for kind, seeds in (("binary", 2), ("binary", 3), ("continuous", 3), ("continuous", 5)):
        for spread in (0.0, 0.1, 0.4):
            cells = (Cell(kind, 1, (0.5, 0.6), rows, seeds, spread) for rows in (30, 100, 500))
            _line(kind, seeds, str(spread), *(coverage(each, trials) for each in cells))
    _head(
        "metrics together",
        "rows",
        "all intervals hold",
        "a wrong difference is reported",
        "the same where none differs",
    )
    mixed = [("binary", 1), ("continuous", 1), ("continuous", 4), ("binary", 4), ("binary", 1), ("continuous", 1)]
    levels = [(0.5, 0.6), (0.7, 0.7), (0.8, 0.9), (0.6, 0.6), (0.8, 0.85), (0.5, 0.5)]
    for count in (2, 4, 6):
        for rows in (30, 100, 500):
            cells = [Cell(*each, level, rows) for each, level in zip(mixed[:count], levels[:count], strict=True)]
            none = [Cell(*each, (level[0], level[0]), rows) for each, level in zip(mixed, levels, strict=True)][:count]
            _line(count, rows, *family(cells, trials), family(none, trials)[1])
    _head("no worse, though worse by exactly the margin", "30 rows", "100 rows", "500 rows")
    for kind, pair in (("binary", (0.8, 0.85)), ("binary", (0.5, 0.6)), ("continuous", (0.8, 0.85))):
        shares = (no_worse(Cell(kind, 1, pair, rows), trials) for rows in (30, 100, 500))
        _line("{}, {} and {}".format(kind, *pair), *shares)


def _tried(trials: int) -> None:
    """Print the table of intervals that were tried."""
    _head("scores", "true means", "rows", "seeds", "apart", "this one", "Student", "percentiles", "bootstrap-t")
    one = [(kind, levels, rows, 1, 0.0) for kind in ("binary", "continuous") for levels in LEVELS for rows in (30, 100)]
    several = [("binary", LEVELS[0], rows, 3, spread) for spread in (0.0, 0.4) for rows in (30, 100)]
    for kind, levels, rows, seeds, spread in one + several:
        cell = Cell(kind, 1, levels, rows, seeds, spread)
        reported = others(cell, trials)
        if seeds > 1:  # these two know nothing of seeds
            reported = {"Student": "", "percentiles": reported["percentiles"], "bootstrap-t": ""}
        _line(kind, "{} and {}".format(*levels), rows, seeds, str(spread), coverage(cell, trials), *reported.values())


if __name__ == "__main__":
    main()
