"""What follows from the number of optimizer steps done alone, so that nothing of it is in a checkpoint.

These are the rows of a batch, the learning rate, and when to evaluate and to save.
"""

import math
from functools import lru_cache
from typing import Literal


def count_steps(n_epochs: int, batch_size: int, num_rows: int, max_steps: int | None = None) -> int:
    """Return the number of optimizer steps of a run over so many training rows."""
    num_steps = n_epochs * math.ceil(num_rows / batch_size)
    return num_steps if max_steps is None else min(num_steps, max_steps)


def count_epochs(num_steps: int, batch_size: int, num_rows: int) -> int:
    """Return the epochs that so many optimizer steps begin."""
    return math.ceil(num_steps / math.ceil(num_rows / batch_size))


def evaluate_every(asked: int | Literal["auto"], num_steps: int) -> int:
    """Return the optimizer steps between evaluations; `auto` is once half way and once at the end."""
    return math.ceil(num_steps / 2) if asked == "auto" else asked


def checkpoint_every(asked: int | Literal["auto"], num_steps: int) -> int:
    """Return the optimizer steps between checkpoints; with `auto` a kill costs a tenth of the run, 100 at most."""
    return min(100, math.ceil(num_steps / 10)) if asked == "auto" else asked


def batch(num_rows: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the row numbers of the batch after `step` optimizer steps; each epoch has an order of its own."""
    # From the step alone: nothing about the order has to be in a checkpoint.
    places = span(num_rows, batch_size, step)
    epoch, start = divmod(places.start, num_rows)
    return order(num_rows, seed, epoch)[start : start + len(places)]


def span(num_rows: int, batch_size: int, step: int) -> range:
    """Return the places of that batch among the rows of all epochs, one epoch behind the other."""
    epoch, position = divmod(step, math.ceil(num_rows / batch_size))
    start = epoch * num_rows + position * batch_size
    return range(start, min(start + batch_size, (epoch + 1) * num_rows))


@lru_cache(2)  # the epoch under way; at its end, the next one
def order(num_rows: int, seed: int, epoch: int) -> list[int]:
    """Return the row numbers of an epoch in their order."""
    import torch

    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed + epoch)).tolist()


def rate(step: int, num_steps: int, warmup_ratio: float, schedule: Literal["cosine", "linear", "constant"]) -> float:
    """Return the factor on the learning rate for the step after `step` steps: a linear climb, then the schedule."""
    # The first step already has a rate above zero, and so has the last, as `done` stays below 1: no step is
    # wasted, and a remote engine shows by its weights whether a step was applied.
    warmup = math.ceil(num_steps * warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, num_steps - warmup)
    return {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[schedule]
