"""The loss of rows: a method with its hyperparameters, applied to scores of the policy and of the reference."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from runner.methods import AnyMethod, BatchStatistics, Experience, Scores
from runner.training.examples import Example

if TYPE_CHECKING:
    from torch import Tensor

Rows = list[dict[str, float]]
"""The loss, the metrics and the weight of each row, by name."""


class Hyperparameters(Protocol):
    """Those of any method with every `auto` resolved, as far as training itself reads them."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


@dataclass(frozen=True)
class Loss:
    """The loss that a method gives rows under its hyperparameters."""

    method: AnyMethod
    hyperparameters: Hyperparameters
    whole: float | None = None
    """The weight of a batch of which not all rows are computed; None where the rows that are given are all of it."""
    batch: BatchStatistics | None = None
    """What is known of all rows together, for a loss that is relative to them."""

    @property
    def has_reference(self) -> bool:
        """Whether it compares the policy with the reference."""
        return self.method.needs_reference(self.hyperparameters)

    @property
    def by_token(self) -> bool:
        """Whether it looks at each token's log-probability."""
        return self.method.by_token(self.hyperparameters)

    @property
    def knows_untrained(self) -> bool:
        """Whether the reference's values alone tell how the untrained model does."""
        return self.has_reference and not self.by_token

    @property
    def needs_kl(self) -> bool:
        """Whether it is relative to the divergence of the policy from the reference."""
        return self.method.needs_kl(self.hyperparameters)

    def within(self, examples: Iterable[Example], kl: float = 0.0) -> "Loss":
        """Return the loss of rows of a batch, or of all held-out rows, whose divergence from the reference is `kl`."""
        targets = [example.targets for example in examples]
        means = tuple(sum(each) / len(targets) for each in zip(*targets, strict=True))
        return replace(self, batch=BatchStatistics(kl, means))

    def weight(self, example: Example) -> float:
        """Return the weight of a row in the mean over its batch."""
        return self.method.weight(example.num_learned, self.hyperparameters)

    def total(self, examples: Sequence[Example]) -> float:
        """Return the weight of the whole batch, by which the sum over its rows is divided."""
        return sum(map(self.weight, examples)) if self.whole is None else self.whole

    def __call__(self, examples: Sequence[Example], policy: Scores) -> dict[str, "Tensor"]:
        """Return `loss` and the method's metrics of rows with these scores, (rows,) each."""
        import torch

        stored = [example.reference_logps for example in examples if example.reference_logps is not None]
        reference = torch.tensor(stored, device=policy.logps.device, dtype=policy.logps.dtype) if stored else None
        if any(example.targets for example in examples):
            targets = [example.targets for example in examples]
            policy = replace(policy, targets=torch.tensor(targets, device=policy.logps.device))
        if any(example.rewarded for example in examples):
            policy = replace(policy, experience=_experience(examples, policy.logps))
        policy = replace(policy, batch=self.batch)
        loss, metrics = self.method.loss(policy, reference, self.hyperparameters)
        return {"loss": loss, **metrics}

    def rows(self, examples: Sequence[Example], policy: Scores) -> Rows:
        """Return loss, metrics and weight of each row with these scores."""
        values = {name: each.tolist() for name, each in self(examples, policy).items()}
        return [
            {name: each[number] for name, each in values.items()} | {"weight": self.weight(example)}
            for number, example in enumerate(examples)
        ]


def _experience(examples: Sequence[Example], like: "Tensor") -> Experience:
    """Return as tensors how rows' sampled answers did; the log-probabilities row after row, answer after answer."""
    import torch

    # Ragged lists are joined: answers differ in length, and the order is that of `TokenScores`.
    rewarded = [example.rewarded for example in examples if example.rewarded is not None]
    assert len(rewarded) == len(examples), "all rows of a batch are sampled, or none"

    def joined(parts: Sequence[Sequence[float] | None]) -> "Tensor | None":
        known = [value for part in parts if part is not None for value in part]
        return torch.tensor(known, device=like.device, dtype=like.dtype) if all(p is not None for p in parts) else None

    advantages = torch.tensor([each.advantages for each in rewarded], device=like.device, dtype=like.dtype)
    old, reference = [each.old_logps for each in rewarded], [each.reference_logps for each in rewarded]
    return Experience(advantages, joined(old), joined(reference))
