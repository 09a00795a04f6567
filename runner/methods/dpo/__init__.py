"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) and the losses that followed it.

The policy is trained to give the chosen answer a higher reward than the rejected one, where the reward of
an answer is how much likelier the policy finds it than the reference does (equation 5, up to a constant):

    reward(y) = beta * (log policy(y | x) - log reference(y | x))
    loss      = -log sigmoid(reward(chosen) - reward(rejected))                          (equation 7)

That is `dpo.loss_type=sigmoid`; losses.py has it and the others, some of which compare answers by token or without
a reference. Pushing the two apart often lowers both likelihoods, and answers decay. The RPO term (Pang et al. 2024,
arXiv:2404.19733, equation 1) holds the chosen answer up: + rpo_alpha * (-log policy(chosen | x) / tokens).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.methods import REWARDS, Hyperparameters, Method, Metric, Scores
from runner.methods.dpo import losses
from runner.methods.dpo.losses import LossKeys
from runner.request.types import resolve_auto

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DPO(Hyperparameters, LossKeys):
    """Keys under `dpo`; those that hosted services have, too, are named as they name them."""


class DirectPreferenceOptimisation(Method[DPO]):
    """Learn which of two answers is preferred."""

    name = "dpo"
    kind = "preference"
    hyperparameters = DPO
    metrics = (
        *REWARDS,
        *(Metric(name, name.replace("_", " "), shown=False) for name in ("logps_chosen", "logps_rejected")),
    )
    headline = "reward_accuracy"

    def needs_reference(self, hyperparameters: DPO) -> bool:
        """Say whether the chosen loss compares the policy with a reference."""
        return losses.LOSSES[hyperparameters.loss_type].reference

    def loss(
        self, policy: Scores, reference_logps: "Tensor | None", hyperparameters: DPO
    ) -> tuple["Tensor", dict[str, "Tensor"]]:
        """Return the loss of each pair and its metrics, all of shape (rows,); answers are [chosen, rejected].

        A reward is beta times the score that the loss compares: for a loss by token it is the reward of a token, where
        TRL logs the reward of the answer.
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
        # By token, as the RPO paper has it: by answer a long one would outweigh the preference.
        chosen_nll = -policy.logps[:, 0] / _tokens(policy)[:, 0]
        value = compared.function(scores[:, 0], scores[:, 1], **known) + keys.rpo_alpha * chosen_nll
        reward_chosen, reward_rejected = (keys.beta * scores.detach()).unbind(1)
        margin = reward_chosen - reward_rejected
        return value, {
            # A tie counts half, so that the untrained policy is at chance and not at zero.
            "reward_accuracy": (torch.sign(margin) + 1) / 2,
            "reward_margin": margin,
            "reward_chosen": reward_chosen,
            "reward_rejected": reward_rejected,
            "logps_chosen": policy.logps[:, 0].detach(),
            "logps_rejected": policy.logps[:, 1].detach(),
        }

    def resolve(self, hyperparameters: DPO, num_rows: int) -> tuple[DPO, Mapping[str, str]]:
        """Replace every `auto` by the value the local backend uses, with the reason by key."""
        choices: losses.Choices = {
            "n_epochs": (1, "one epoch separates the pairs; more degrade the answers"),
            "batch_size": (2 if num_rows < 1000 else 16, "2 below 1,000 rows, for more optimizer steps; else 16"),
            "learning_rate_multiplier": (1.0, "the backend's own rate"),
        }
        return resolve_auto(hyperparameters, choices | losses.choices(hyperparameters))

    def problems(self, hyperparameters: DPO) -> Iterable[str]:
        """Return a sentence for each key that the chosen loss does not know, or lacks."""
        return losses.problems(hyperparameters)

    def unused(self, hyperparameters: DPO) -> Iterable[str]:
        """Return the keys that the chosen loss does not know."""
        return losses.unused(hyperparameters)


def answer_scores(policy: Scores, reference_logps: "Tensor | None", hyperparameters: DPO) -> "Tensor":
    """Return the scores that the chosen loss compares, shape (rows, answers), in nats.

    Log-ratios to the reference (equation 5's, without beta), or the policy's own log-probabilities; summed over an
    answer's tokens, or their mean.
    """
    loss = losses.LOSSES[hyperparameters.loss_type]
    scores = policy.logps
    if loss.reference:
        assert reference_logps is not None
        scores = scores - reference_logps
    return scores / _tokens(policy) if loss.per_token or hyperparameters.length_normalised else scores


def _tokens(policy: Scores) -> "Tensor":
    """Return the tokens of each answer, at least 1: the sum over an answer that was truncated whole is 0."""
    return policy.num_tokens.clamp(min=1)


METHOD = DirectPreferenceOptimisation()
