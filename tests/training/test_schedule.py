"""What follows from the number of steps done: the rows of a batch, and the learning rate."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runner.training.schedule import batch, checkpoint_every, count_steps, evaluate_every, rate


@given(num_rows=st.integers(1, 40), batch_size=st.integers(1, 9), seed=st.integers(0, 99))
def test_an_epoch_visits_every_row_once(num_rows: int, batch_size: int, seed: int) -> None:
    steps = math.ceil(num_rows / batch_size)
    for epoch in range(2):
        visited = [index for step in range(steps) for index in batch(num_rows, batch_size, seed, epoch * steps + step)]
        assert sorted(visited) == list(range(num_rows))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = ([index for step in range(4) for index in batch(10, 3, 7, step + start)] for start in (0, 4))
    assert first != second
    assert batch(100, 8, 1, 5) == batch(100, 8, 1, 5)
    assert batch(100, 8, 1, 5) != batch(100, 8, 2, 5)


def test_the_rate_climbs_in_the_warm_up_and_then_follows_its_schedule() -> None:
    climbing = [rate(step, 100, 0.1, "cosine") for step in range(11)]
    assert climbing == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])
    assert rate(55, 100, 0.1, "cosine") == pytest.approx(0.5)
    assert rate(55, 100, 0.1, "linear") == pytest.approx(0.5)
    assert rate(99, 100, 0.1, "constant") == 1.0


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("num_steps", [1, 7, 100])
def test_without_warm_up_the_rate_is_that_of_transformers(schedule: Any, num_steps: int) -> None:
    from transformers import get_scheduler

    adam = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    steps = {} if schedule == "constant" else {"num_warmup_steps": 0, "num_training_steps": num_steps}
    theirs = get_scheduler(schedule, adam, **steps)
    for step in range(num_steps):
        ours = rate(step, num_steps, 0.0, schedule)
        assert ours == pytest.approx(theirs.get_last_lr()[0])
        adam.step(), theirs.step()


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1, 1.0])
def test_every_step_learns_something(warmup_ratio: float) -> None:
    schedules: tuple[Any, ...] = ("cosine", "linear", "constant")
    for schedule in schedules:
        assert all(0 < rate(step, 7, warmup_ratio, schedule) <= 1 for step in range(7))


def test_steps_are_counted_by_epochs_and_may_be_limited() -> None:
    assert count_steps(3, 4, 10) == 9
    assert count_steps(3, 4, 10, max_steps=5) == 5


def test_auto_evaluates_half_way_and_at_the_end_and_saves_ten_times_or_each_hundred_steps() -> None:
    assert (evaluate_every("auto", 9), evaluate_every(4, 9)) == (5, 4)
    assert (checkpoint_every("auto", 25), checkpoint_every("auto", 9_000), checkpoint_every(7, 9_000)) == (3, 100, 7)
