"""The packs of a batch dealt to several processes, so that all have as much to do and as many forward calls.

The sum over the batch is the same however it is dealt: a pack's number, from which its random numbers follow,
and its rows' weights are those of the whole batch.
"""

from collections.abc import Sequence
from typing import Self

from runner.backends.local.checkpoint import State
from runner.backends.local.sharded import Tensors
from runner.ranks import Place


def turns(sizes: Sequence[int], place: Place) -> list[tuple[int, bool]]:
    """Deal packs of so many tokens; return the numbers of this process's, each with whether it counts.

    Packs go round in their order, as many as there are processes at a time, and in each round the largest to who
    has the least so far. Where the last round lacks some, a pack is computed a second time and does not count: a
    sharded model needs every process in each of its calls, and the others would only wait.
    """
    held = [0] * place.count
    mine: list[tuple[int, bool]] = []
    for start in range(0, len(sizes), place.count):
        packs = sorted(range(start, min(start + place.count, len(sizes))), key=lambda number: -sizes[number])
        missing = place.count - len(packs)
        dealt = [(number, True) for number in packs] + [(packs[-1], False)] * missing
        for (number, counts), owner in zip(dealt, sorted(range(place.count), key=held.__getitem__), strict=True):
            held[owner] += sizes[number]
            if owner == place.number:
                mine.append((number, counts))
    return mine


class NoWriter:
    """Stands for the writer of checkpoints in a process beside the one that writes them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def save(self, state: State) -> None:
        """Write nothing."""

    def best(self, weights: Tensors) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Wait for nothing."""
