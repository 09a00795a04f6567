"""What a training run does on this machine, worked out of a run: every `auto` is a number here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.backends.local.keys import Local
from runner.backends.local.parallel.schedule import How
from runner.methods import AnyMethod
from runner.training.recipe import Recipe
from runner.training.schedule import checkpoint_every, count_steps, evaluate_every

if TYPE_CHECKING:
    from runner.plan import Run


@dataclass(frozen=True, kw_only=True)
class LocalRecipe(Recipe):
    """What the training loop does, and what only the in-process engine knows."""

    ema_decay: float | None = None
    checkpoints: int = 1
    tokens_at_once: int = 1


def make(run: "Run", method: AnyMethod, num_rows: int, how: How) -> LocalRecipe:
    """Return what a run asks of the training loop, over so many rows, done as `how` says."""
    settings, evaluation, keys = Local.of(run.request), run.request.evaluation, run.hyperparameters
    num_steps = count_steps(keys.n_epochs, keys.batch_size, num_rows, settings.max_steps)
    return LocalRecipe(
        method=method,
        hyperparameters=keys,
        learning_rate=settings.learning_rate * keys.learning_rate_multiplier,
        schedule=settings.schedule,
        warmup_ratio=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        num_steps=num_steps,
        seed=run.plan.seed,
        evaluate_every=evaluate_every(evaluation.every, num_steps),
        checkpoint_every=checkpoint_every(settings.runtime.checkpoint_every, num_steps),
        keep_best=evaluation.keep == "best",
        patience=evaluation.patience,
        ema_decay=settings.ema_decay,
        checkpoints=settings.runtime.checkpoints,
        # Unpacked, each answer is a forward call of its own, whatever the room.
        tokens_at_once=how["tokens_at_once"] if how["packed"] else 1,
    )
