"""How far a judge can be trusted: kappa as published, biases that are built in are found, intervals that hold."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from runner.judging import calibrate
from runner.judging.calibrate import Judged, Label


def crossed(counts: dict[tuple[Label, Label], int]) -> tuple[list[Label], list[Label]]:
    """Return two sides' labels with so many rows of each pair."""
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Wikipedia, "Cohen's kappa", simple example: grant proposals read by two readers.
        ({("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15}, 0.4),
        # The same page, "same percentages but different numbers".
        ({("yes", "yes"): 45, ("yes", "no"): 15, ("no", "yes"): 25, ("no", "no"): 15}, 0.1304),
        ({("yes", "yes"): 25, ("yes", "no"): 35, ("no", "yes"): 5, ("no", "no"): 35}, 0.2593),
    ],
)
def test_kappa_is_that_of_the_published_examples(counts: dict[tuple[Label, Label], int], expected: float) -> None:
    found = calibrate.kappa(*crossed(counts))
    assert found.value == pytest.approx(expected, abs=5e-5)
    assert found.low < expected < found.high


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    one = random.integers(4, size=60)
    other = np.where(random.random(60) < 0.6, one, random.integers(5, size=60))
    assert calibrate.kappa(one.tolist(), other.tolist()).value == pytest.approx(cohen_kappa_score(one, other))


def test_kappa_of_labels_that_are_all_the_same_is_undefined_and_agreement_is_not() -> None:
    assert math.isnan(calibrate.kappa(["good"] * 12, ["good"] * 12).value)
    assert calibrate.agreement(["good"] * 12, ["good"] * 12) == calibrate.Measure(1.0, 1.0, 1.0, 12)


def test_the_interval_of_agreement_is_near_that_of_the_binomial_distribution() -> None:
    one, other = crossed({("a", "a"): 80, ("a", "b"): 20})
    found = calibrate.agreement(one, other)
    # Wald's interval, 0.8 ± 1.96 · sqrt(0.8 · 0.2 / 100).
    assert (found.low, found.high) == (pytest.approx(0.7216, abs=0.02), pytest.approx(0.8784, abs=0.02))


def test_nine_in_ten_intervals_hold_the_truth_at_least() -> None:
    random = np.random.default_rng(0)
    held = 0
    for seed in range(20):
        same = random.random(50) < 0.7
        found = calibrate.agreement(["a"] * 50, np.where(same, "a", "b").tolist(), seed)
        held += found.low <= 0.7 <= found.high
    assert held >= 18


def test_with_few_rows_there_is_a_value_and_no_interval() -> None:
    found = calibrate.agreement(["a", "b"], ["a", "a"])
    assert (found.value, found.rows, math.isnan(found.low)) == (0.5, 2, True)
    assert calibrate.agreement([], []).rows == 0


@pytest.mark.parametrize(
    ("first", "second", "changed", "preferred"),
    [([1.0] * 20, [0.0] * 20, 1.0, 1.0), ([0.0] * 20, [1.0] * 20, 1.0, -1.0),
     ([1.0, 0.0] * 10, [1.0, 0.0] * 10, 0.0, 0.0), ([1.0] * 5 + [0.0] * 15, [0.0] * 20, 0.25, 0.25),
     ([1.0, 0.0] * 10, [0.0, 1.0] * 10, 1.0, 0.0)],
)  # fmt: skip
def test_position_bias_is_how_often_the_order_decides_and_for_whom(
    first: list[float], second: list[float], changed: float, preferred: float
) -> None:
    found = calibrate.position_bias(first, second)
    assert (found["order_changed"].value, found["first_preferred"].value) == (changed, preferred)


def test_length_bias_is_what_people_do_not_share() -> None:
    lengths = [float(number - 10) for number in range(21) if number != 10]
    longer_wins = [float(length > 0) for length in lengths]
    balanced = [1.0, 0.0] * 10
    assert calibrate.length_bias(longer_wins, balanced, lengths, paired=True).value == 1.0
    assert calibrate.length_bias(longer_wins, longer_wins, lengths, paired=True).value == 0.0
    assert calibrate.length_bias(balanced, longer_wins, lengths, paired=True).value == -1.0
    of_scores = calibrate.length_bias([0.8] * 10 + [0.6] * 10, [0.6] * 20, [float(n) for n in range(20)], paired=False)
    assert of_scores.value == pytest.approx(-0.2)
    assert of_scores.high < 0


def test_length_bias_without_two_lengths_is_undefined() -> None:
    assert math.isnan(calibrate.length_bias([1.0] * 12, [0.0] * 12, [5.0] * 12, paired=False).value)


def test_a_calibration_has_what_its_rows_have_the_fields_for() -> None:
    labels = [Judged(label=number % 2, verdict=number % 2) for number in range(12)]
    assert set(calibrate.calibrate(labels)) == {"agreement", "kappa"}
    full = [
        Judged(label=1.0, verdict=0.5, again=0.5 if number else 1.0, first=1.0, second=0.0, length=number - 5.5)
        for number in range(12)
    ]
    found = calibrate.calibrate(full)
    assert list(found) == [
        "agreement", "kappa", "self_agreement", "self_kappa", "order_changed", "first_preferred", "longer_preferred",
    ]  # fmt: skip
    assert (found["agreement"].value, found["self_agreement"].value) == (0.0, pytest.approx(11 / 12))
    assert found["longer_preferred"].value == 0.0


def test_the_same_rows_give_the_same_interval() -> None:
    one, other = crossed({("a", "a"): 8, ("a", "b"): 4, ("b", "b"): 8})
    assert calibrate.kappa(one, other) == calibrate.kappa(one, other)
