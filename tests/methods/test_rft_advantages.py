"""Advantages of a group's answers: what each baseline means, and what becomes of answers that have no grade."""

from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.methods.rft.advantages import Baseline, advantages, spread

REWARDS = [0.0, 0.5, 1.0, 1.0]


def test_a_scaled_advantage_is_in_standard_deviations_of_the_group() -> None:
    expected = [(reward - mean(REWARDS)) / (stdev(REWARDS) + 1e-4) for reward in REWARDS]
    assert advantages(REWARDS, "scaled") == pytest.approx(expected)


def test_leave_one_out_compares_with_the_mean_of_the_others() -> None:
    expected = [reward - mean(REWARDS[:at] + REWARDS[at + 1 :]) for at, reward in enumerate(REWARDS)]
    assert advantages(REWARDS, "others") == pytest.approx(expected)


@pytest.mark.parametrize("baseline", ["mean", "scaled", "others"])
def test_an_answer_without_a_grade_is_left_out_and_not_a_zero(baseline: Baseline) -> None:
    assert advantages([0.2, None, 0.6], baseline) == [
        advantages([0.2, 0.6], baseline)[0], 0.0, advantages([0.2, 0.6], baseline)[1]
    ]  # fmt: skip
    assert advantages([None, 0.3, None], baseline) == [0.0, 0.0, 0.0]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.sampled_from(["mean", "scaled", "others"]))
def test_advantages_add_up_to_nothing_and_are_zero_without_spread(rewards: list[float], baseline: Baseline) -> None:
    found = advantages(rewards, baseline)
    assert sum(found) == pytest.approx(0, abs=1e-6)
    assert any(found) <= spread(rewards)
    assert not any(advantages([rewards[0]] * len(rewards), baseline))
