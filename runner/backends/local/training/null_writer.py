"""What stands for the writer of checkpoints on ranks that write none."""

from typing import Self

from runner.backends.local.parallel.sharding import Tensors
from runner.backends.local.training.checkpoint import State


class NullWriter:
    """The writer of checkpoints on every rank but rank 0: it writes nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    # The state is made on every rank all the same: gathering a sharded weight needs all of them.
    def save(self, state: State) -> None:
        """Write nothing."""

    def best(self, weights: Tensors) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Wait for nothing."""
