"""What the methods promise of their losses: shapes, metrics, rows that do not mix, and what `auto` means."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import methods
from runner.methods import Scores, dpo, sft
from runner.methods.dpo import DPO
from runner.methods.dpo.losses import LOSSES
from runner.methods.sft import SFT


def scores(*rows: list[float], tokens: int = 4, correct: int = 3) -> Scores:
    logps = torch.tensor(rows)
    return Scores(logps, torch.full_like(logps, tokens), torch.full_like(logps, correct))


def resolved(loss_type: str, **keys: float) -> DPO:
    needed = dict.fromkeys(LOSSES[loss_type].needs, 0.1)
    return dpo.METHOD.resolve(DPO(loss_type=loss_type, **(needed | keys)), 100)[0]


PLAIN = resolved("sigmoid", beta=0.5, rpo_alpha=0.0)


def test_dpo_is_minus_log_sigmoid_of_the_reward_margin() -> None:
    # rewards: 0.5 * (-10 + 12) = 1 and 0.5 * (-20 + 18) = -1, so the margin is 2
    loss, metrics = dpo.METHOD.loss(scores([-10.0, -20.0]), torch.tensor([[-12.0, -18.0]]), PLAIN)
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-2))])
    assert {name: value.tolist() for name, value in metrics.items()} == {
        "reward_accuracy": [1.0],
        "reward_margin": [2.0],
        "reward_chosen": [1.0],
        "reward_rejected": [-1.0],
        "logps_chosen": [-10.0],
        "logps_rejected": [-20.0],
    }


def test_methods_measure_what_they_say() -> None:
    _, metrics = dpo.METHOD.loss(scores([-10.0, -20.0]), torch.tensor([[-12.0, -18.0]]), PLAIN)
    assert tuple(metrics) == tuple(each.name for each in methods.load("dpo").metrics)
    _, metrics = sft.METHOD.loss(scores([-10.0]), None, SFT())
    assert tuple(metrics) == tuple(each.name for each in methods.load("sft").metrics)


def test_an_untrained_policy_is_at_chance_and_log_two() -> None:
    loss, metrics = dpo.METHOD.loss(scores([-10.0, -20.0]), torch.tensor([[-10.0, -20.0]]), PLAIN)
    assert loss.item() == pytest.approx(math.log(2))
    assert metrics["reward_accuracy"].item() == 0.5


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_rpo_term_adds_the_chosen_answers_loss_a_token_to_every_loss(loss_type: str) -> None:
    row, reference = scores([-10.0, -20.0]), torch.tensor([[-12.0, -18.0]])
    plain, _ = dpo.METHOD.loss(row, reference, resolved(loss_type, rpo_alpha=0.0))
    loss, _ = dpo.METHOD.loss(row, reference, resolved(loss_type, rpo_alpha=2.0))
    assert (loss - plain).item() == pytest.approx(2.0 * 10.0 / 4)


def test_a_reward_is_beta_times_what_the_loss_compares() -> None:
    row, reference = scores([-10.0, -20.0], [-8.0, -4.0]), torch.tensor([[-12.0, -18.0], [-9.0, -9.0]])
    shown = {
        name: dpo.METHOD.loss(row, reference, resolved(name, beta=0.5))[1]["reward_margin"].tolist() for name in LOSSES
    }  # log-ratios 2, -2 and 1, 5; a token 0.5, -0.5 and 0.25, 1.25; log-probabilities a token -2.5, -5 and -2, -1
    summed, by_token, without_reference = [2.0, -2.0], [0.5, -0.5], [1.25, -0.5]
    assert shown == {
        **dict.fromkeys(("sigmoid", "hinge", "robust", "apo_zero", "sppo_hard"), summed),
        "ipo": by_token,
        **dict.fromkeys(("simpo", "orpo"), without_reference),
    }


def test_a_reference_is_needed_by_the_losses_that_compare_with_one() -> None:
    without = {name for name in LOSSES if not dpo.METHOD.needs_reference(DPO(loss_type=name))}
    assert without == {"simpo", "orpo"}
    for name in without:
        loss, _ = dpo.METHOD.loss(scores([-10.0, -20.0]), None, resolved(name))
        assert loss.shape == (1,)
    assert not sft.METHOD.needs_reference(SFT())


def test_an_answer_that_was_cut_away_whole_does_not_make_the_loss_no_number() -> None:
    policy = Scores(torch.tensor([[-10.0, 0.0]]), torch.tensor([[4.0, 0.0]]), torch.zeros(1, 2))
    for name in LOSSES:
        logps = policy.logps.clone().requires_grad_()
        loss, _ = dpo.METHOD.loss(Scores(logps, policy.num_tokens, policy.num_correct), policy.logps, resolved(name))
        loss.sum().backward()
        assert torch.isfinite(loss).all(), name
        assert torch.isfinite(logps.grad).all(), name


numbers = st.floats(-60.0, -0.25, width=32)
some_rows = st.lists(
    st.tuples(numbers, numbers, numbers, numbers, st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6
)


@given(some_rows, st.sampled_from(sorted(LOSSES)), st.booleans(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_a_rows_loss_and_metrics_depend_on_that_row_alone(rows, loss_type, length_normalised, random) -> None:
    random.shuffle(rows)
    keys = resolved(loss_type, length_normalised=length_normalised and not LOSSES[loss_type].per_token)
    table = torch.tensor(rows)
    policy, reference = Scores(table[:, :2], table[:, 4:], torch.zeros(len(rows), 2)), table[:, 2:4]
    together, shown = dpo.METHOD.loss(policy, reference, keys)
    assert together.shape == (len(rows),)
    for index in range(len(rows)):
        at = slice(index, index + 1)
        row = Scores(policy.logps[at], policy.num_tokens[at], policy.num_correct[at])
        alone, shown_alone = dpo.METHOD.loss(row, reference[at], keys)
        torch.testing.assert_close(alone, together[at])
        for name, value in shown_alone.items():
            torch.testing.assert_close(value, shown[name][at])


def test_sft_is_the_mean_loss_of_a_token_and_counts_what_is_right() -> None:
    keys = SFT(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0)
    loss, metrics = sft.METHOD.loss(scores([-8.0], [-2.0]), None, keys)
    assert loss.tolist() == [2.0, 0.5]
    assert metrics["token_accuracy"].tolist() == [0.75, 0.75]


def test_pairs_count_alike_and_conversations_by_their_tokens() -> None:
    pairs, conversations = DPO(), SFT()
    assert dpo.METHOD.weight((3, 90), pairs) == dpo.METHOD.weight((50, 2), pairs) == 1.0
    assert sft.METHOD.weight((30,), conversations) == 3 * sft.METHOD.weight((10,), conversations)


@pytest.mark.parametrize("name", ["dpo", "sft"])
def test_no_auto_is_left_and_each_has_a_reason(name: str) -> None:
    method = methods.load(name)
    asked = method.hyperparameters()
    found, reasons = method.resolve(asked, 100)
    assert "auto" not in vars(found).values()
    assert reasons.keys() == {key for key, value in vars(asked).items() if value == "auto"}


def test_what_was_given_is_not_resolved() -> None:
    found, reasons = dpo.METHOD.resolve(DPO(beta=0.3), 100)
    assert found.beta == 0.3
    assert "beta" not in reasons


@pytest.mark.parametrize(
    ("keys", "beta", "rpo_alpha", "gamma"),
    [
        (DPO(), 0.1, 1.0, 0.0),
        (DPO(length_normalised=True), 5.0, 1.0, 0.0),
        (DPO(loss_type="ipo"), 0.5, 1.0, 0.0),
        (DPO(loss_type="apo_zero"), 0.1, 0.0, 0.0),
        (DPO(loss_type="simpo"), 2.0, 0.0, 1.0),
        (DPO(loss_type="orpo"), 0.1, 0.0, 0.0),
    ],
    ids=lambda value: value.loss_type if isinstance(value, DPO) else "",
)
def test_auto_is_what_suits_the_loss(keys: DPO, beta: float, rpo_alpha: float, gamma: float) -> None:
    found, _ = dpo.METHOD.resolve(keys, 100)
    assert (found.beta, found.rpo_alpha, found.gamma) == (beta, rpo_alpha, gamma)


@pytest.mark.parametrize("name", LOSSES)
def test_what_auto_means_goes_with_the_loss(name: str) -> None:
    assert [*methods.load("dpo").problems(resolved(name))] == []
