"""Dynamic fine-tuning: SFT in which each token counts by how likely the model finds it: a loss by token in one file.

python -m runner method=dft dataset=house_style_sft
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.methods import Scores
from runner.methods.sft import SFT, SupervisedFineTuning

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DFTKeys(SFT):
    """Keys under `dft`: those of SFT."""


class DynamicFineTuning(SupervisedFineTuning):
    """DFT (Wu et al. 2025, arXiv:2508.05629), equation 9: -p log p for each token, with no gradient through p."""

    name = "dft"
    hyperparameters = DFTKeys

    def by_token(self, hyperparameters: SFT) -> bool:
        """Return true: the policy's scores then have those of each token."""
        return True

    def loss(
        self, policy: Scores, reference_logps: "Tensor | None", hyperparameters: SFT
    ) -> tuple["Tensor", dict[str, "Tensor"]]:
        """Return the mean over each row's answer tokens, and SFT's metrics, (rows,) each."""
        assert policy.tokens is not None
        logps = policy.tokens.logps
        value = policy.summed(-logps.exp().detach() * logps)[:, 0] / policy.num_tokens[:, 0]
        return value, super().loss(policy, reference_logps, hyperparameters)[1]


METHOD = DynamicFineTuning()
