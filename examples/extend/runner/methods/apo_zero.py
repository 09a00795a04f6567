"""Learning from single judgements, good or bad: APO-zero for unpaired answers, as TRL's KTO trainer offers it.

    good:  loss = 1 - sigmoid(beta * log ratio)        bad:  loss = sigmoid(beta * log ratio)

Anchored preference optimisation (D'Oosterlinck et al. 2024, arXiv:2408.06266), its form for KTO's data (Ethayarajh et
al. 2024, arXiv:2402.01306) without the estimate of the KL divergence, so that a row's loss is its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.methods import Hyperparameters, Method, Metric, Scores
from runner.request.types import Auto, PositiveFloat, resolve_auto

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class APOZero(Hyperparameters):
    """Keys under `apo_zero`."""

    beta: PositiveFloat | Auto = "auto"
    """How strongly the policy is held to the reference."""


class AnchoredPreference(Method[APOZero]):
    """Make good answers likelier and bad ones less likely than they were."""

    name = "apo_zero"
    kind = "judged"
    hyperparameters = APOZero
    headline = "judged_right"
    metrics = (Metric("judged_right", "answers on the right side", is_share=True, headline=True),)

    def needs_reference(self, hyperparameters: APOZero) -> bool:
        """Return true."""
        return True

    def loss(
        self, policy: Scores, reference_logps: "Tensor | None", hyperparameters: APOZero
    ) -> tuple["Tensor", dict[str, "Tensor"]]:
        """Return each row's loss, and whether its answer has become likelier if good, less likely if bad, (rows,)."""
        assert reference_logps is not None
        assert policy.targets is not None
        reward = float(hyperparameters.beta) * (policy.logps - reference_logps)[:, 0]
        sign = 2 * policy.targets[:, 0] - 1
        return 1 - (sign * reward).sigmoid(), {"judged_right": (sign * reward > 0).to(reward.dtype).detach()}

    def resolve(self, hyperparameters: APOZero, num_rows: int) -> tuple[APOZero, Mapping[str, str]]:
        """Replace every `auto`."""
        return resolve_auto(
            hyperparameters,
            {
                "n_epochs": (1, "as for pairs"),
                "batch_size": (2 if num_rows < 1000 else 16, "2 below 1,000 rows, for more optimizer steps; else 16"),
                "learning_rate_multiplier": (1.0, "the backend's own rate"),
                "beta": (0.1, "the usual value of the paper"),
            },
        )


METHOD = AnchoredPreference()
