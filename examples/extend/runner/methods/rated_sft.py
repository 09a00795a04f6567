"""SFT in which each answer counts by its score: reward-weighted regression (Peters and Schaal 2007) on given answers.

loss = -score * log policy(answer | prompt) / tokens
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.methods import Scores
from runner.methods.sft import SFT, SupervisedFineTuning

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RatedSFTKeys(SFT):
    """Keys under `rated_sft`: those of SFT."""


class RatedFineTuning(SupervisedFineTuning):
    """Make answers likelier, each as much as its score says."""

    name = "rated_sft"
    kind = "rated"
    hyperparameters = RatedSFTKeys

    def loss(
        self, policy: Scores, reference_logps: "Tensor | None", hyperparameters: SFT
    ) -> tuple["Tensor", dict[str, "Tensor"]]:
        """Return SFT's loss of each row times its score, and SFT's metrics, (rows,) each."""
        assert policy.targets is not None
        value, metrics = super().loss(policy, reference_logps, hyperparameters)
        return policy.targets[:, 0] * value, metrics


METHOD = RatedFineTuning()
