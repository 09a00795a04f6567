"""The parts of the training loop that are plain functions."""

from dataclasses import replace

import pytest

from runner import methods
from runner.backends.local.train import Recipe, batch, mean, rate
from runner.methods.dpo import DPO

RECIPE = Recipe(
    method=methods.load("dpo"), hyperparameters=DPO(), learning_rate=1.0, schedule="cosine", warmup_ratio=0.1,
    weight_decay=0.0, max_grad_norm=1.0, num_steps=100, seed=0, evaluate_every=9, checkpoint_every=9, keep_best=False,
)  # fmt: skip


def test_an_epoch_visits_every_row_once_and_the_next_in_another_order() -> None:
    first = [index for at in range(4) for index in batch(10, 3, 7, at)]
    second = [index for at in range(4, 8) for index in batch(10, 3, 7, at)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_the_order_follows_from_the_seed_alone() -> None:
    assert batch(100, 8, 1, 5) == batch(100, 8, 1, 5)
    assert batch(100, 8, 1, 5) != batch(100, 8, 2, 5)


def test_the_rate_climbs_in_the_warm_up_and_then_follows_its_schedule() -> None:
    climbing = [rate(at, RECIPE) for at in range(11)]
    assert climbing[0] == pytest.approx(0.1)
    assert climbing[9] == climbing[10] == 1.0
    assert rate(55, RECIPE) == pytest.approx(0.5)
    assert rate(55, replace(RECIPE, schedule="linear")) == pytest.approx(0.5)
    assert rate(99, replace(RECIPE, schedule="constant")) == 1.0


def test_no_warm_up_begins_at_the_peak() -> None:
    assert rate(0, replace(RECIPE, warmup_ratio=0.0)) == 1.0


def test_a_mean_is_weighted() -> None:
    rows = [{"loss": 1.0, "weight": 1.0}, {"loss": 3.0, "weight": 3.0}]
    assert mean(rows) == {"eval/loss": 2.5}
