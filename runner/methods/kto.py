"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306): answers judged good or bad, one by one.

The reward of an answer is how much likelier the policy finds it than the reference does; z, the same for a whole batch,
is the divergence of the policy from the reference (training/mismatched.py), and takes no gradient (equations 7 and 8):

    r = log policy(y | x) - log reference(y | x)        z = max(0, the batch's mean of r over mismatched answers)
    good:  loss = desirable_weight * (1 - sigmoid(beta * (r - z)))
    bad:   loss = undesirable_weight * (1 - sigmoid(beta * (z - r)))

`kto.loss_type=apo_zero_unpaired` has z = 0, which needs no second pass: the form for single answers, as TRL has it, of
APO-zero (D'Oosterlinck et al. 2024, arXiv:2408.06266): for answers that are better than the model's own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from runner.methods import KL, REWARDS, Hyperparameters, Method, Metric, Scores
from runner.request.types import Auto, NonNegativeFloat, PositiveFloat, resolve_auto

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class KTO(Hyperparameters):
    """Keys under `kto`, named as TRL names them."""

    loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    """Which loss: `kto` is relative to the divergence from the reference; `apo_zero_unpaired` is not."""
    beta: PositiveFloat | Auto = "auto"
    """How closely the policy is held to the reference; smaller lets it go further."""
    desirable_weight: NonNegativeFloat = 1.0
    """Factor on the loss of good answers: with few of them, bad / good, up to a third more (equation 8)."""
    undesirable_weight: NonNegativeFloat = 1.0
    """Factor on the loss of bad answers."""


class KahnemanTverskyOptimisation(Method[KTO]):
    """Learn from answers judged good or bad."""

    name = "kto"
    kind = "judged"
    hyperparameters = KTO
    metrics = (*REWARDS, KL, Metric("logps", "log-probability of an answer", shown=False))
    headline = "reward_accuracy"

    def needs_reference(self, hyperparameters: KTO) -> bool:
        """Return true: a reward is a log-ratio."""
        return True

    def needs_kl(self, hyperparameters: KTO) -> bool:
        """Say whether the chosen loss has z."""
        return hyperparameters.loss_type == "kto"

    def loss(
        self, policy: Scores, reference_logps: "Tensor | None", hyperparameters: KTO
    ) -> tuple["Tensor", dict[str, "Tensor"]]:
        """Return the loss of each answer and its metrics, all of shape (rows,); targets are 1 for good, 0 for bad.

        An answer counts as right where its reward is on its side of z. Means of rewards by judgement are there where
        the batch has both: a row's value is scaled by the other rows, so that the mean over all is that of its own.
        """
        import torch

        keys, batch = hyperparameters, policy.batch
        assert reference_logps is not None
        assert policy.targets is not None
        assert batch is not None
        assert keys.beta != "auto"
        good, share, z = policy.targets[:, 0], batch.targets[0], batch.kl
        ratios = (policy.logps - reference_logps)[:, 0]
        right = keys.beta * (ratios - z) * (2 * good - 1)
        # z is a number: as in the paper, no gradient goes through it.
        weights = good * keys.desirable_weight + (1 - good) * keys.undesirable_weight
        rewards = keys.beta * ratios.detach()
        found = {
            # Untrained, all are on neither side: a tie counts half.
            "reward_accuracy": (torch.sign(right.detach()) + 1) / 2,
            "logps": policy.logps[:, 0].detach(),
            "kl": torch.full_like(rewards, z),
        }
        # TRL logs none either where a batch lacks one kind.
        if 0 < share < 1:
            chosen, rejected = rewards * good / share, rewards * (1 - good) / (1 - share)
            found |= {"reward_margin": chosen - rejected, "reward_chosen": chosen, "reward_rejected": rejected}
        return weights * (1 - torch.sigmoid(right)), found

    def resolve(self, hyperparameters: KTO, num_rows: int) -> tuple[KTO, Mapping[str, str]]:
        """Replace every `auto` by the value the local backend uses, with the reason by key."""
        choices: dict[str, tuple[object, str]] = {
            "n_epochs": (1, "as for pairs"),
            "batch_size": (8 if num_rows < 1000 else 32, "8 below 1,000 rows, else 32: z needs several rows"),
            "learning_rate_multiplier": (1.0, "the backend's own rate"),
            "beta": (0.1, "the usual value of the paper"),
        }
        return resolve_auto(hyperparameters, choices)

    def problems(self, hyperparameters: KTO) -> Iterable[str]:
        """Return a sentence for batches without a mismatched answer, and for weights that leave nothing to learn."""
        keys = hyperparameters
        # The last batch of an epoch may have one row all the same: it borrows from the batch before (mismatched.py).
        if keys.batch_size == 1 and self.needs_kl(keys):
            yield (
                "kto.batch_size: got 1, but the divergence is measured by the answers of other rows of a batch; give 2 "
                "or more, or kto.loss_type=apo_zero_unpaired."
            )
        if not keys.desirable_weight and not keys.undesirable_weight:
            yield "kto.desirable_weight, kto.undesirable_weight: both are 0, so nothing is learned; give one above 0."


METHOD = KahnemanTverskyOptimisation()
