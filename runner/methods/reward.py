"""Reward modelling by pairs: Bradley and Terry's model (1952) on a number that a head gives each answer.

    loss = -log sigmoid(reward(chosen) - reward(rejected)) + center_rewards_coefficient * (their sum)²

as InstructGPT has it (Ouyang et al. 2022, arXiv:2203.02155, equation 1). The pairs fix differences of rewards and not
where they lie; the second term (Eisenstein et al. 2023, arXiv:2312.09244) holds them around zero, so that a score
means the same for every prompt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.methods import REWARDS, Hyperparameters, Method, Scores
from runner.request.types import NonNegativeFloat, resolve_auto

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Reward(Hyperparameters):
    """Keys under `reward`, named as TRL names them."""

    center_rewards_coefficient: NonNegativeFloat = 0.0
    """Weight of the term that holds rewards around zero; 0.01 is usual, 0 leaves it out."""


class RewardModelling(Method[Reward]):
    """Learn to give the chosen answer a higher reward than the rejected one."""

    name = "reward"
    kind = "preference"
    reward_model = True
    hyperparameters = Reward
    metrics = REWARDS
    headline = "reward_accuracy"

    def loss(
        self, policy: Scores, reference_logps: "Tensor | None", hyperparameters: Reward
    ) -> tuple["Tensor", dict[str, "Tensor"]]:
        """Return the loss of each pair and its metrics, all of shape (rows,); answers are [chosen, rejected]."""
        import torch

        assert policy.rewards is not None
        chosen, rejected = policy.rewards.unbind(1)
        # In float32, whatever the body's type: the head is (reward_model/head.py).
        margin = chosen - rejected
        value = -torch.nn.functional.logsigmoid(margin)
        value = value + hyperparameters.center_rewards_coefficient * (chosen + rejected) ** 2
        return value, {
            # A tie counts half, as with DPO.
            "reward_accuracy": (torch.sign(margin.detach()) + 1) / 2,
            "reward_margin": margin.detach(),
            "reward_chosen": chosen.detach(),
            "reward_rejected": rejected.detach(),
        }

    def resolve(self, hyperparameters: Reward, num_rows: int) -> tuple[Reward, Mapping[str, str]]:
        """Replace every `auto` by the value the local backend uses, with the reason by key."""
        choices: dict[str, tuple[object, str]] = {
            "n_epochs": (1, "reward models overfit in a second one (Ouyang et al. 2022)"),
            "batch_size": (2 if num_rows < 1000 else 16, "2 below 1,000 rows, for more optimizer steps; else 16"),
            "learning_rate_multiplier": (1.0, "the backend's own rate"),
        }
        return resolve_auto(hyperparameters, choices)


METHOD = RewardModelling()
