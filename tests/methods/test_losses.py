"""Losses by numbers worked out by hand from the papers' equations."""

import math

import pytest
import torch

from runner import methods
from runner.methods import Scores, dpo, sft
from runner.methods.dpo import DPO
from runner.methods.sft import SFT


def scores(*logps: float, tokens: int = 4, correct: int = 3) -> Scores:
    ones = torch.ones(len(logps))
    return Scores(torch.tensor(logps), ones * tokens, ones * correct)


HYPERPARAMETERS = DPO(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0, beta=0.5, rpo_alpha=0.0)


def test_dpo_is_minus_log_sigmoid_of_the_reward_margin() -> None:
    # rewards: 0.5 * (-10 + 12) = 1 and 0.5 * (-20 + 18) = -1, so the margin is 2
    loss, metrics = dpo.loss(scores(-10.0, -20.0), torch.tensor([-12.0, -18.0]), HYPERPARAMETERS)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert metrics["reward_margin"].item() == pytest.approx(2.0)
    assert metrics["reward_chosen"].item() == pytest.approx(1.0)
    assert metrics["reward_accuracy"].item() == 1.0


def test_an_untrained_policy_stands_at_chance_and_log_two() -> None:
    loss, metrics = dpo.loss(scores(-10.0, -20.0), torch.tensor([-10.0, -20.0]), HYPERPARAMETERS)
    assert loss.item() == pytest.approx(math.log(2))
    assert metrics["reward_accuracy"].item() == 0.5


def test_the_rpo_term_adds_the_chosen_answers_loss_a_token() -> None:
    with_term = DPO(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0, beta=0.5, rpo_alpha=2.0)
    plain, _ = dpo.loss(scores(-10.0, -20.0), torch.tensor([-12.0, -18.0]), HYPERPARAMETERS)
    loss, _ = dpo.loss(scores(-10.0, -20.0), torch.tensor([-12.0, -18.0]), with_term)
    assert (loss - plain).item() == pytest.approx(2.0 * 10.0 / 4)


def test_sft_is_the_mean_loss_of_a_token_and_counts_what_is_right() -> None:
    loss, metrics = sft.loss(scores(-8.0), None, SFT(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0))
    assert loss.item() == pytest.approx(2.0)
    assert metrics["token_accuracy"].item() == pytest.approx(0.75)


def test_pairs_count_alike_and_conversations_by_their_tokens() -> None:
    assert dpo.weight((3, 90)) == dpo.weight((50, 2)) == 1.0
    assert sft.weight((30,)) == 3 * sft.weight((10,))


@pytest.mark.parametrize("name", ["dpo", "sft"])
def test_no_auto_is_left_and_each_has_a_reason(name: str) -> None:
    method = methods.load(name)
    resolved, reasons = method.resolve(method.hyperparameters(), 100)
    assert "auto" not in vars(resolved).values()
    assert reasons.keys() == vars(resolved).keys()


def test_what_was_given_is_not_resolved() -> None:
    resolved, reasons = dpo.resolve(DPO(beta=0.3), 100)
    assert resolved.beta == 0.3
    assert "beta" not in reasons
