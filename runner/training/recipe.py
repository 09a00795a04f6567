"""What a training run does, whatever engine does it: every `auto` is a number here."""

from dataclasses import dataclass
from typing import Literal

from runner.methods import AnyMethod
from runner.training.engine import Adam
from runner.training.loss import Hyperparameters, Loss
from runner.training.schedule import rate


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the training loop does, all `auto` resolved."""

    method: AnyMethod
    hyperparameters: Hyperparameters
    learning_rate: float
    """The peak, `learning_rate_multiplier` included."""
    schedule: Literal["cosine", "linear", "constant"]
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float | None
    """Gradients longer than this are scaled down to it; None where they are left as they are."""
    num_steps: int
    seed: int
    evaluate_every: int
    checkpoint_every: int
    keep_best: bool
    patience: int | None = None

    @property
    def loss(self) -> Loss:
        """The loss of rows."""
        return Loss(self.method, self.hyperparameters)

    def rate(self, step: int) -> float:
        """Return the learning rate of the optimizer step that follows `step` steps."""
        return self.learning_rate * rate(step, self.num_steps, self.warmup_ratio, self.schedule)

    def adam(self, step: int) -> Adam:
        """Return the numbers of the optimizer step that follows `step` steps."""
        return Adam(self.rate(step), self.weight_decay, self.max_grad_norm)
