"""What a training run does on this machine, worked out of a run: every `auto` is a number here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.backends.local.keys import Local
from runner.backends.local.parallel.schedule import How
from runner.methods import AnyMethod
from runner.training.recipe import Recipe, num_steps, of_run

if TYPE_CHECKING:
    from runner.plan import Run


@dataclass(frozen=True, kw_only=True)
class LocalRecipe(Recipe):
    """What the training loop does, and what only the in-process engine knows."""

    ema_decay: float | None = None
    checkpoints: int = 1
    tokens_at_once: int = 1


def make(run: "Run", method: AnyMethod, how: How) -> LocalRecipe:
    """Return what a run asks of the training loop, done as `how` says."""
    settings = Local.of(run.request)
    common = of_run(
        run, method, settings, num_steps(run, settings.max_steps),
        max_grad_norm=settings.max_grad_norm, asked_checkpoints=settings.runtime.checkpoint_every,
    )  # fmt: skip
    return LocalRecipe(
        **vars(common),
        ema_decay=settings.ema_decay,
        checkpoints=settings.runtime.checkpoints,
        # Unpacked, each answer is a forward call of its own, whatever the room.
        tokens_at_once=how["tokens_at_once"] if how["packed"] else 1,
    )
