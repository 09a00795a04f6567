"""Supervised fine-tuning: the likelihood of the assistant's own tokens, and of nothing else.

loss = -log policy(answer | prompt) / tokens, averaged over all answer tokens of a batch, so that long
answers count in proportion to their length, as in the hosted service and in common trainers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.methods import Hyperparameters, Method, Metric, Scores
from runner.request.types import resolve_auto

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SFT(Hyperparameters):
    """Keys under `sft`."""


class SupervisedFineTuning(Method[SFT]):
    """Learn the assistant's turns of conversations."""

    name = "sft"
    kind = "conversation"
    hyperparameters = SFT
    linear = True
    metrics = (Metric("token_accuracy", "token accuracy", is_share=True, headline=True),)

    def loss(
        self, policy: Scores, reference_logps: "Tensor | None", hyperparameters: SFT
    ) -> tuple["Tensor", dict[str, "Tensor"]]:
        """Return the mean negative log-probability of each row's answer tokens, and its token accuracy, (rows,)."""
        assert policy.logps.ndim == 2
        assert policy.logps.shape[1] == 1
        value = -policy.logps[:, 0] / policy.num_tokens[:, 0]
        return value, {"token_accuracy": (policy.num_correct[:, 0] / policy.num_tokens[:, 0]).detach()}

    def weight(self, num_tokens: tuple[int, ...], hyperparameters: SFT) -> float:
        """Return the number of answer tokens: each token counts the same."""
        # A mean over rows would let each token of a short answer count more than one of a long answer.
        return float(num_tokens[0])

    def resolve(self, hyperparameters: SFT, num_rows: int) -> tuple[SFT, Mapping[str, str]]:
        """Replace every `auto` by the value the local backend uses, with the reason by key."""
        choices: dict[str, tuple[object, str]] = {
            "n_epochs": (3 if num_rows < 1000 else 1, "3 below 1,000 rows, else 1"),
            "batch_size": (2 if num_rows < 1000 else 16, "2 below 1,000 rows, for more optimizer steps; else 16"),
            "learning_rate_multiplier": (1.0, "the backend's own rate"),
        }
        return resolve_auto(hyperparameters, choices)


METHOD = SupervisedFineTuning()
