"""What a training run does, worked out of a job: every `auto` is a number here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.backends.local import count_steps
from runner.methods import Method

if TYPE_CHECKING:
    from runner.plan import Job


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training run does, all `auto` resolved."""

    method: Method
    hyperparameters: Any
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


def make(job: "Job", method: Method, num_rows: int, how: Mapping[str, Any]) -> Recipe:
    """Return what a job asks of the training loop, over so many rows, done as `how` says."""
    settings, evaluation, hyperparameters = job.request.backend, job.request.evaluation, job.hyperparameters
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
        seed=job.plan.seed,
        evaluate_every=math.ceil(num_steps / 2) if evaluation.every == "auto" else evaluation.every,
        checkpoint_every=min(100, math.ceil(num_steps / 10)) if saves == "auto" else saves,
        keep_best=evaluation.keep == "best",
        patience=evaluation.patience,
        ema_decay=settings.ema_decay,
        checkpoints=settings.runtime.checkpoints,
        tokens_at_once=how["tokens_at_once"] if how["packed"] else 1,
    )


def rate(at: int, recipe: Recipe) -> float:
    """Return the factor on the learning rate for the step after `at` steps: a linear climb, then the schedule."""
    warmup = math.ceil(recipe.num_steps * recipe.warmup_ratio)
    if at < warmup:
        return (at + 1) / warmup
    done = (at - warmup) / max(1, recipe.num_steps - warmup)
    return {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[recipe.schedule]
