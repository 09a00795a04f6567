"""Curves as places in a drawing: within it, in order, with round numbers next to it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.pages.curves import BOTTOM, HEIGHT, LEFT, MOST, RIGHT, TOP, WIDTH, drawing, round_numbers, thinned

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(st.lists(NUMBERS, min_size=2, max_size=30))
def test_every_point_is_within_the_drawing(values: list[float]) -> None:
    found = drawing("loss", {"train": list(enumerate(values))})
    assert found is not None
    (curve,) = found.curves
    assert all(
        LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1 and TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1 for x, y in curve.points
    )
    heights = [y for _, y in curve.points]
    assert heights.index(min(heights)) in [at for at, value in enumerate(values) if math.isclose(value, max(values))]
    assert all(TOP - 0.1 <= tick.at <= HEIGHT - BOTTOM + 0.1 for tick in found.values)


def test_values_that_are_no_numbers_are_left_out_and_a_single_point_is_no_curve() -> None:
    assert drawing("loss", {"train": [(1, 2.0)], "eval": []}) is None
    assert drawing("loss", {"train": [(1, math.nan), (2, math.inf)]}) is None
    found = drawing("loss", {"train": [(1, 2.0), (2, math.nan), (3, 1.0)], "eval": []})
    assert found is not None
    assert [(each.name, len(each.points)) for each in found.curves] == [("train", 2)]


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.13, 0.31, [0.15, 0.2, 0.25, 0.3]), (1, 64, [20, 40, 60])],
)
def test_numbers_on_an_axis_are_round(low: float, high: float, found: list[float]) -> None:
    assert round_numbers(low, high) == found


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    points = [(step, float(step)) for step in range(10 * MOST + 3)]
    found = thinned(points)
    assert len(found) <= MOST
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert thinned(points[:MOST]) == points[:MOST]


def test_learning_rates_on_one_axis_are_all_written_as_decimals() -> None:
    found = drawing("learning rate", {"train": [(0, 0.00003), (9, 0.0002)]})
    assert found is not None
    assert [each.label for each in found.values] == ["0.00005", "0.0001", "0.00015", "0.0002"]
