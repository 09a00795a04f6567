"""Each preference loss by numbers worked out by hand from its paper's equation, and where it pushes."""

import math
from collections.abc import Callable

import pytest
import torch

from runner.methods.dpo.losses import LOSSES


def sigma(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def loss(name: str, chosen: float, rejected: float, **keys: float) -> float:
    value = LOSSES[name].function(torch.tensor([chosen]), torch.tensor([rejected]), **keys)
    assert value.shape == (1,)
    return float(value)


def odds(score: float) -> float:
    return math.exp(score) / (1 - math.exp(score))


# Scores 2 and -1 are log-ratios (or their means), -0.5 and -2 mean log-probabilities; beta is 0.5.
BY_HAND = {
    "sigmoid, equation 7": ("sigmoid", 2, -1, {"label_smoothing": 0.0}, -math.log(sigma(1.5))),
    "sigmoid, smoothed": (
        "sigmoid", 2, -1, {"label_smoothing": 0.2}, -0.8 * math.log(sigma(1.5)) - 0.2 * math.log(sigma(-1.5)),
    ),
    "ipo, equation 17": ("ipo", 2, -1, {}, (3 - 1) ** 2),
    "hinge, past its margin": ("hinge", 2, -1, {}, 0.0),
    "hinge, before it": ("hinge", 0.5, 1, {}, 1.25),
    "robust": (
        "robust", 2, -1, {"label_smoothing": 0.2}, (-0.8 * math.log(sigma(1.5)) + 0.2 * math.log(sigma(-1.5))) / 0.6,
    ),
    "apo_zero, equation 7": ("apo_zero", 2, -1, {}, 1 - sigma(1) + sigma(-0.5)),
    "sppo_hard, equation 4.7": ("sppo_hard", 2, -0.5, {}, (2 - 1) ** 2 + (-0.5 + 1) ** 2),
    "simpo, equation 6": ("simpo", -0.5, -2, {"gamma": 0.25, "label_smoothing": 0.0}, -math.log(sigma(0.75 - 0.25))),
    "orpo, equations 6 and 7": (
        "orpo", -0.5, -2, {}, 0.5 - 0.5 * math.log(sigma(math.log(odds(-0.5) / odds(-2)))),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "chosen", "rejected", "keys", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_a_loss_is_its_papers_equation(
    name: str, chosen: float, rejected: float, keys: dict[str, float], expected: float
) -> None:
    assert loss(name, chosen, rejected, beta=0.5, **keys) == pytest.approx(expected, rel=1e-5)


def test_every_loss_is_worked_out_by_hand() -> None:
    assert {name for name, *_ in BY_HAND.values()} == set(LOSSES)


def keys_of(name: str) -> dict[str, float]:
    values = {"beta": 0.5, "label_smoothing": 0.1, "gamma": 0.25}
    return {key: value for key, value in values.items() if key in LOSSES[name].keys}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_pushes_the_chosen_answer_up_and_the_rejected_one_down(name: str) -> None:
    chosen, rejected = torch.tensor([-1.0], requires_grad=True), torch.tensor([-0.9], requires_grad=True)
    LOSSES[name].function(chosen, rejected, **keys_of(name)).backward()
    # Of itself sppo_hard draws the rejected answer to -1 / (2 beta) = -1, from above here.
    assert chosen.grad.item() < 0
    assert rejected.grad.item() > 0


@pytest.mark.parametrize("name", ["ipo", "sppo_hard"])
def test_a_loss_with_a_target_pushes_back_beyond_it(name: str) -> None:
    chosen, rejected = torch.tensor([4.0], requires_grad=True), torch.tensor([-4.0], requires_grad=True)
    LOSSES[name].function(chosen, rejected, beta=0.5).backward()
    assert chosen.grad.item() > 0
    assert rejected.grad.item() < 0


def test_a_smoothed_loss_is_least_where_the_preference_is_as_sure_as_the_labels() -> None:
    margins = torch.linspace(-5, 5, 2001)
    losses = LOSSES["sigmoid"].function(margins, torch.zeros(2001), beta=1.0, label_smoothing=0.2)
    assert sigma(float(margins[losses.argmin()])) == pytest.approx(0.8, abs=2e-3)


def test_the_robust_loss_of_flipped_labels_is_on_average_that_of_clean_ones() -> None:
    def robust(chosen: float, rejected: float) -> float:
        return loss("robust", chosen, rejected, beta=0.5, label_smoothing=0.2)

    expected = 0.8 * robust(2, -1) + 0.2 * robust(-1, 2)
    assert expected == pytest.approx(loss("sigmoid", 2, -1, beta=0.5, label_smoothing=0.0), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "rejected"), [("sigmoid", 400.0), ("robust", 400.0), ("simpo", 0.0), ("orpo", 0.0), ("orpo", -1e-9)]
)
def test_far_out_and_certain_answers_keep_loss_and_gradient_numbers(name: str, rejected: float) -> None:
    chosen, other = torch.tensor([-400.0], requires_grad=True), torch.tensor([rejected], requires_grad=True)
    value = LOSSES[name].function(chosen, other, **keys_of(name))
    value.backward()
    assert torch.isfinite(torch.stack([value.detach(), chosen.grad, other.grad])).all()


def test_a_further_loss_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.methods.dpo import losses

    monkeypatch.setattr(losses, "LOSSES", dict(LOSSES))

    @losses.loss_type(reference=False, beta=(1.0, "as an example"))
    def linear(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float, gamma: float) -> torch.Tensor:
        return gamma - beta * (chosen - rejected)

    known: Callable[..., object] = losses.LOSSES["linear"].function
    assert known is linear
    assert losses.LOSSES["linear"].keys == {"beta", "gamma", "length_normalised"}
    assert losses.choices(losses.LossKeys(loss_type="linear"))["beta"] == (1.0, "as an example")
    reported = [*losses.problems(losses.LossKeys(loss_type="linear", gamma=1.0, label_smoothing=0.1))]
    assert [sentence.partition(":")[0] for sentence in reported] == ["dpo.label_smoothing"]
