"""Intervals, p-values and their correction, against published figures and simulated grades."""

import numpy as np
import pytest
from scipy import stats

from runner.compare.interval import Estimate, estimate, holm
from tests.benchmarks.coverage import Cell, coverage, family


def test_of_scores_of_0_and_1_it_is_agresti_and_mins() -> None:
    """One half is added to each cell: for 4 and 18 discordant rows of 60, by hand with their formula and t."""
    ours = np.array([[1.0] * 18 + [0.0] * 4 + [1.0] * 20 + [0.0] * 18])
    theirs = np.array([[0.0] * 18 + [1.0] * 4 + [1.0] * 20 + [0.0] * 18])
    better, worse, rows = 18.5, 4.5, 62
    error = np.sqrt((better + worse) - (better - worse) ** 2 / rows) / rows
    reach = stats.t.ppf(0.975, 59) * error
    assert estimate(ours, theirs).interval() == pytest.approx(((14 / 62) - reach, (14 / 62) + reach))


def test_rows_that_all_come_out_alike_leave_a_small_difference_possible() -> None:
    """For 300 scores of 0 or 1 some half a point; three in 300, the rule for none of 300, is a point."""
    low, high = estimate(np.ones((1, 300)), np.ones((1, 300))).interval()
    assert -0.01 < low < -0.005
    assert low == -high


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_p_is_the_confidence_at_which_the_interval_reaches_zero(seeds: int, confidence: float) -> None:
    random = np.random.default_rng(0)
    theirs = random.normal(size=(seeds, 40))
    for shift in np.linspace(0, 1, 9):
        made = estimate(theirs + random.normal(shift, 1, (seeds, 40)), theirs)
        low, high = made.interval(confidence)
        assert (low > 0 or high < 0) == (made.p < 1 - confidence)


def test_where_nothing_varies_a_difference_is_sure_and_none_is_none() -> None:
    assert Estimate(1.0, 0.0, 9).p == 0
    assert Estimate(0.0, 0.0, 9).p == 1


def test_p_values_are_corrected_in_holms_steps() -> None:
    """By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which is not below the one before it."""
    given = [0.01, 0.04, 0.03, 0.005]
    assert holm(given) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("cell", [Cell("binary", 1, (0.8, 0.9), 60), Cell("continuous", 4, (0.5, 0.6), 30, seeds=2)])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(cell: Cell) -> None:
    assert 0.93 <= coverage(cell, 600) <= 0.97 if cell.seeds == 1 else coverage(cell, 300) > 0.93


def test_intervals_of_several_metrics_hold_together() -> None:
    cells = [
        Cell("binary", 1, (0.5, 0.6), 60),
        Cell("continuous", 1, (0.7, 0.7), 60),
        Cell("binary", 4, (0.6, 0.6), 60),
    ]
    held, wrong = family(cells, 400)
    assert held >= 0.93
    assert wrong <= 0.07
