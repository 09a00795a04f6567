"""What a training run does and how, worked out of a run and the machine: every `auto` is a number here."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from runner.backends.local.keys import Local
from runner.backends.local.parallel.schedule import How
from runner.methods import AnyMethod

if TYPE_CHECKING:
    from runner.plan import Run


class Hyperparameters(Protocol):
    """Those of any method with every `auto` resolved, as far as training itself reads them."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training run does, all `auto` resolved."""

    method: AnyMethod
    hyperparameters: Hyperparameters
    learning_rate: float
    schedule: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    num_steps: int
    seed: int
    evaluate_every: int
    checkpoint_every: int
    keep_best: bool
    patience: int | None = None
    ema_decay: float | None = None
    neftune_alpha: float = 0.0
    checkpoints: int = 1
    tokens_at_once: int = 1


def count_steps(settings: Local, hyperparameters: Hyperparameters, num_rows: int) -> int:
    """Return the number of optimizer steps of a run over so many training rows."""
    num_steps = hyperparameters.n_epochs * math.ceil(num_rows / hyperparameters.batch_size)
    return num_steps if settings.max_steps is None else min(num_steps, settings.max_steps)


def make(run: "Run", method: AnyMethod, num_rows: int, how: How) -> Recipe:
    """Return what a run asks of the training loop, over so many rows, done as `how` says."""
    settings, evaluation, hyperparameters = Local.of(run.request), run.request.evaluation, run.hyperparameters
    num_steps = count_steps(settings, hyperparameters, num_rows)
    saves = settings.runtime.checkpoint_every
    return Recipe(
        method=method,
        hyperparameters=hyperparameters,
        learning_rate=settings.learning_rate * hyperparameters.learning_rate_multiplier,
        schedule=settings.schedule,
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        num_steps=num_steps,
        seed=run.plan.seed,
        # Once half way and once at the end.
        evaluate_every=math.ceil(num_steps / 2) if evaluation.every == "auto" else evaluation.every,
        # A kill costs a tenth of the run at most, and never more than 100 steps.
        checkpoint_every=min(100, math.ceil(num_steps / 10)) if saves == "auto" else saves,
        keep_best=evaluation.keep == "best",
        patience=evaluation.patience,
        ema_decay=settings.ema_decay,
        checkpoints=settings.runtime.checkpoints,
        # Unpacked, each answer is a forward call of its own, whatever the room.
        tokens_at_once=how["tokens_at_once"] if how["packed"] else 1,
    )


def rate(step: int, recipe: Recipe) -> float:
    """Return the factor on the learning rate for the step after `step` steps: a linear climb, then the schedule."""
    # The first step already has a rate above zero, and so has the last, as `done` stays below 1: no step is
    # wasted.
    warmup = math.ceil(recipe.num_steps * recipe.warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, recipe.num_steps - warmup)
    return {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[recipe.schedule]
