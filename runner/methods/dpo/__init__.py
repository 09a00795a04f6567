"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) and the losses that followed it.

The policy is trained to give the chosen answer a higher reward than the rejected one, where the reward of
an answer is how much likelier the policy finds it than the reference does (equation 5, up to a constant):

    reward(y) = beta * (log policy(y | x) - log reference(y | x))
    loss      = -log sigmoid(reward(chosen) - reward(rejected))                          (equation 7)

That is `dpo.loss_type=sigmoid`; losses.py has it and the others, some of which compare answers by token or without
a reference. Pushing the two apart often lowers both likelihoods, and answers decay. The RPO term (Pang et al. 2024,
arXiv:2404.19733, equation 1) holds the chosen answer up: + rpo_alpha * (-log policy(chosen | x) / tokens).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.methods import Method, Scores
from runner.methods.dpo import losses
from runner.methods.dpo.losses import LossKeys
from runner.request.types import Auto, PositiveFloat, PositiveInt, resolve_auto

if TYPE_CHECKING:
    from torch import Tensor

HOSTED = {"loss_type": "sigmoid", "rpo_alpha": 0.0, **losses.NEUTRAL}
"""A hosted job minimises equation 7, and nothing beside it."""
MEASURES = ("reward_accuracy", "reward_margin", "reward_chosen", "reward_rejected", "logps_chosen", "logps_rejected")


@dataclass(frozen=True, kw_only=True)
class DPO(LossKeys):
    """Keys under `dpo`; those that the hosted service has too are named as it names them."""

    n_epochs: PositiveInt | Auto = "auto"
    """Passes over the training rows."""
    batch_size: PositiveInt | Auto = "auto"
    """Pairs an optimizer step."""
    learning_rate_multiplier: PositiveFloat | Auto = "auto"
    """Factor on the backend's own learning rate."""


def needs_reference(hyperparameters: DPO) -> bool:
    """Say whether the chosen loss compares the policy with a reference."""
    return losses.LOSSES[hyperparameters.loss_type].reference


def answer_scores(policy: Scores, reference_logps: "Tensor | None", hyperparameters: DPO) -> "Tensor":
    """Return what the chosen loss compares answers by, shape (rows, answers), in nats.

    Log-ratios to the reference (equation 5's, without beta), or the policy's own log-probabilities; summed over an
    answer's tokens, or their mean.
    """
    loss = losses.LOSSES[hyperparameters.loss_type]
    scores = policy.logps
    if loss.reference:
        assert reference_logps is not None
        scores = scores - reference_logps
    return scores / _tokens(policy) if loss.per_token or hyperparameters.length_normalised else scores


def loss(
    policy: Scores, reference_logps: "Tensor | None", hyperparameters: DPO
) -> tuple["Tensor", dict[str, "Tensor"]]:
    """Return the loss of each pair and its metrics, all of shape (rows,); answers are [chosen, rejected].

    A reward that is shown is beta times what the loss compares: for a loss by token a token's reward, where TRL
    shows the answer's.
    """
    import torch

    assert policy.logps.ndim == 2
    assert policy.logps.shape[1] == 2
    keys = hyperparameters
    assert keys.beta != "auto"
    assert keys.rpo_alpha != "auto"
    compared = losses.LOSSES[keys.loss_type]
    scores = answer_scores(policy, reference_logps, keys)
    known = {key: getattr(keys, key) for key in compared.keys - {"length_normalised"}}
    chosen_nll = -policy.logps[:, 0] / _tokens(policy)[:, 0]
    value = compared.function(scores[:, 0], scores[:, 1], **known) + keys.rpo_alpha * chosen_nll
    reward_chosen, reward_rejected = (keys.beta * scores.detach()).unbind(1)
    margin = reward_chosen - reward_rejected
    return value, {
        # A tie counts half, so that the untrained policy stands at chance and not at nought.
        "reward_accuracy": (torch.sign(margin) + 1) / 2,
        "reward_margin": margin,
        "reward_chosen": reward_chosen,
        "reward_rejected": reward_rejected,
        "logps_chosen": policy.logps[:, 0].detach(),
        "logps_rejected": policy.logps[:, 1].detach(),
    }


def _tokens(policy: Scores) -> "Tensor":
    """Return the tokens of each answer, at least 1: an answer that was cut away whole has a sum of 0."""
    return policy.num_tokens.clamp(min=1)


def weight(num_tokens: tuple[int, ...]) -> float:
    """Return 1: each pair counts the same, however long its answers."""
    return 1.0


def resolve(hyperparameters: DPO, num_rows: int) -> tuple[DPO, Mapping[str, str]]:
    """Replace every `auto` by the value the local backend uses, with the reason by key."""
    choices: losses.Choices = {
        "n_epochs": (1, "one pass wins the margin; more wear the answers down"),
        "batch_size": (2 if num_rows < 1000 else 16, "2 below 1,000 rows, so that there are steps enough; else 16"),
        "learning_rate_multiplier": (1.0, "the backend's own rate"),
    }
    return resolve_auto(hyperparameters, choices | losses.choices(hyperparameters))


METHOD = Method(
    name="dpo",
    kind="preference",
    hyperparameters=DPO,
    needs_reference=needs_reference,
    loss=loss,
    measures=MEASURES,
    weight=weight,
    resolve=resolve,
    problems=losses.problems,
    unused=losses.unused,
    hosted=HOSTED,
)
