"""What a training run does, whatever engine does it: every `auto` is a number here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from runner import methods
from runner.methods import AnyMethod
from runner.training.engine import Adam
from runner.training.loss import Hyperparameters, Loss
from runner.training.schedule import checkpoint_every, count_steps, evaluate_every, rate

if TYPE_CHECKING:
    from runner.plan import Run


class LoopSettings(Protocol):
    """The keys under `backend` that the loop reads, of every backend whose training loop is ours."""

    @property
    def learning_rate(self) -> float | Literal["auto"]:
        """The peak, before `learning_rate_multiplier`; a planned run has a number."""

    @property
    def schedule(self) -> Literal["cosine", "linear", "constant"]:
        """The course of the learning rate after the warmup."""

    @property
    def warmup_ratio(self) -> float:
        """The share of the steps in which it climbs."""

    @property
    def weight_decay(self) -> float:
        """AdamW's."""


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
    sources: Mapping[str, int] = field(default_factory=dict)
    """Of a mixture, how many held-out rows there are of each source, in the order of the rows."""

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


def num_steps(run: "Run", max_steps: int | None) -> int:
    """Return the optimizer steps of a run; `max_steps` is the limit that its backend's settings have."""
    passes = methods.load(run.plan.method).passes(run.hyperparameters)
    return count_steps(passes, run.hyperparameters.batch_size, run.plan.train.rows, max_steps)


def of_run(
    run: "Run", method: AnyMethod, settings: LoopSettings, num_steps: int, *,
    max_grad_norm: float | None, asked_checkpoints: int | Literal["auto"],
) -> Recipe:  # fmt: skip
    """Return what a planned run asks of the loop, in so many steps with a checkpoint as often as asked."""
    evaluation, keys = run.request.evaluation, run.hyperparameters
    assert settings.learning_rate != "auto"  # resolved with the plan
    return Recipe(
        method=method,
        hyperparameters=keys,
        learning_rate=settings.learning_rate * keys.learning_rate_multiplier,
        schedule=settings.schedule,
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=max_grad_norm,
        num_steps=num_steps,
        seed=run.plan.seed,
        evaluate_every=evaluate_every(method.interval(keys, evaluation.every), num_steps),
        checkpoint_every=checkpoint_every(asked_checkpoints, num_steps),
        keep_best=evaluation.keep == "best",
        patience=evaluation.patience,
        sources=run.sources,
    )
