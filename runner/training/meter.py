"""The values of training steps, read when the next step is under way, with the speed of the tokens."""

import math
import time
from collections.abc import Generator
from dataclasses import dataclass

from runner.errors import RunnerError
from runner.record.events import Event, Metrics, Progress
from runner.training.engine import Engine, Pending
from runner.training.recipe import Recipe


@dataclass(frozen=True)
class _Waiting:
    """The values of the step that led to `step`, not yet read."""

    step: int
    values: tuple[Pending, ...]
    num_tokens: int
    seconds: float
    """What the step took until it was handed in: all of it on a CPU, little on a device that still computes it."""


class Meter:
    """Reads a step's values back when the next one is under way, and says how fast the tokens went."""

    def __init__(self, engine: Engine, recipe: Recipe) -> None:
        self._engine, self._recipe = engine, recipe
        self._waiting: _Waiting | None = None
        self.restart()

    def restart(self) -> None:
        """Restart the clock, after something that was no step."""
        self._since = time.perf_counter()

    def pause(self, seconds: float) -> None:
        """Leave out time that was spent on something else."""
        self._since += seconds

    def add(self, step: int, values: tuple[Pending, ...], num_tokens: int) -> Generator[Event, None, None]:
        """Take the values of the step that led to `step`, not yet read; yield those of the step before."""
        now = time.perf_counter()
        before, self._waiting = self._waiting, _Waiting(step, values, num_tokens, now - self._since)
        self._since = now
        yield from self._read(before)

    def flush(self) -> Generator[Event, None, None]:
        """Yield what is waiting. Raises `RunnerError` where the loss is no longer a number."""
        waiting, self._waiting = self._waiting, None
        yield from self._read(waiting)

    def _read(self, waiting: _Waiting | None) -> Generator[Event, None, None]:
        if waiting is None:
            return
        step, began = waiting.step, time.perf_counter()
        values = {name: value for pending in waiting.values for name, value in pending().items()}
        if not math.isfinite(values["loss"]):
            raise RunnerError(
                f"train: the loss is {values['loss']} after {step - 1} steps; the last checkpoint is kept; "
                "try again with a lower learning rate."
            )
        # Reading waits until the device has done the step, so that both together are what it took.
        waited = time.perf_counter() - began
        self.pause(waited)
        shown = {f"train/{name}": value for name, value in values.items()}
        shown["train/learning_rate"] = self._recipe.rate(step - 1)
        shown |= self._engine.figures(waiting.num_tokens, waiting.seconds + waited)
        yield Metrics(step, shown)
        yield Progress("train", step, self._recipe.num_steps, shown)
