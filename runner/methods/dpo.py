"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290), with an optional SFT term.

The policy is trained to give the chosen answer a higher reward than the rejected one, where the reward of
an answer is how much likelier the policy finds it than the reference does (equation 5, up to a constant):

    reward(y) = beta * (log policy(y | x) - log reference(y | x))
    loss      = -log sigmoid(reward(chosen) - reward(rejected))                          (equation 7)

Pushing the two apart often lowers both likelihoods, and answers decay. The RPO term (Pang et al. 2024,
arXiv:2404.19733, equation 1) holds the chosen answer up: + rpo_alpha * (-log policy(chosen | x) / tokens).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.methods import Method, Scores
from runner.values import Auto, NonNegativeFloat, PositiveFloat, PositiveInt, resolve_auto

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DPO:
    """Keys under `dpo`, named as the hosted service names them."""

    n_epochs: PositiveInt | Auto = "auto"
    """Passes over the training rows."""
    batch_size: PositiveInt | Auto = "auto"
    """Pairs an optimizer step."""
    learning_rate_multiplier: PositiveFloat | Auto = "auto"
    """Factor on the backend's own learning rate."""
    beta: PositiveFloat | Auto = "auto"
    """How closely the policy is held to the reference: 0.1 to 0.5 is usual, smaller lets it move further."""
    rpo_alpha: NonNegativeFloat | Auto = "auto"
    """Weight of the SFT term on the chosen answer; 0 is plain DPO. Local only: a hosted job takes `auto`."""


def rewards(policy_logps: "Tensor", reference_logps: "Tensor", beta: float) -> "Tensor":
    """Return the implicit reward of each answer, same shape as the two log-probabilities (equation 5)."""
    return beta * (policy_logps - reference_logps)


def preference_loss(reward_margin: "Tensor") -> "Tensor":
    """Return `-log sigmoid(margin)` element by element (equation 7)."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(reward_margin)


def loss(
    policy: Scores, reference_logps: "Tensor | None", hyperparameters: DPO
) -> tuple["Tensor", dict[str, "Tensor"]]:
    """Return the loss of one pair and its metrics, all scalars; every answer's tensors are [chosen, rejected]."""
    import torch

    assert policy.logps.shape == (2,)
    assert reference_logps is not None
    assert hyperparameters.beta != "auto"
    assert hyperparameters.rpo_alpha != "auto"
    chosen, rejected = rewards(policy.logps, reference_logps, hyperparameters.beta)
    margin = chosen - rejected
    chosen_nll = -policy.logps[0] / policy.num_tokens[0]
    value = preference_loss(margin) + hyperparameters.rpo_alpha * chosen_nll
    # A tie counts half, so that the untrained policy stands at chance and not at nought.
    accuracy = (torch.sign(margin.detach()) + 1) / 2
    return value, {
        "reward_accuracy": accuracy,
        "reward_margin": margin.detach(),
        "reward_chosen": chosen.detach(),
        "reward_rejected": rejected.detach(),
        "logps_chosen": policy.logps[0].detach(),
        "logps_rejected": policy.logps[1].detach(),
    }


def weight(num_tokens: tuple[int, ...]) -> float:
    """Return 1: each pair counts the same, however long its answers."""
    return 1.0


def resolve(hyperparameters: DPO, num_rows: int) -> tuple[DPO, Mapping[str, str]]:
    """Replace every `auto` by the value the local backend uses, with the reason by key."""
    choices: dict[str, tuple[Any, str]] = {
        "n_epochs": (1, "one pass wins the margin; more wear the answers down"),
        "batch_size": (2 if num_rows < 1000 else 16, "2 below 1,000 rows, so that there are steps enough; else 16"),
        "learning_rate_multiplier": (1.0, "the backend's own rate"),
        "beta": (0.1, "the usual value of the paper"),
        "rpo_alpha": (1.0, "keeps answers whole while the margin grows"),
    }
    return resolve_auto(hyperparameters, choices)


METHOD = Method(
    name="dpo",
    kind="preference",
    hyperparameters=DPO,
    needs_reference=True,
    loss=loss,
    weight=weight,
    resolve=resolve,
)
