"""What the loop learns from, an optimizer step at a time: a contract, and stored rows as its usual case."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from runner.record.events import Event
from runner.training import mismatched
from runner.training.engine import Engine
from runner.training.examples import Example, Examples, num_tokens
from runner.training.loss import Loss
from runner.training.recipe import Recipe
from runner.training.schedule import batch, span


@dataclass(frozen=True)
class Batch:
    """The rows of an optimizer step and their loss; none where there is nothing to learn from.

    `values` were measured before the step, by name without the split: the reward of sampled answers, say.
    """

    examples: Sequence[Example]
    loss: Loss
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """Tokens that a model computes for the batch."""
        return sum(num_tokens(example.tokens) for example in self.examples)


class Batches(Protocol):
    """The batches of a training, each determined by the number of steps done and the weights then."""

    def batch(self, engine: Engine, step: int) -> Generator[Event, None, Batch]:
        """Return the batch after `step` optimizer steps; the engine has the weights of that moment."""


@dataclass(frozen=True)
class StoredBatches:
    """Rows that are there before training, in an order of their own for each epoch.

    `mismatched` are those of `MismatchedRows`, for a loss that is relative to the divergence from the reference.
    """

    rows: Examples
    recipe: Recipe
    mismatched: Examples | None = None

    def batch(self, engine: Engine, step: int) -> Generator[Event, None, Batch]:
        """Return the rows that follow in the order."""
        size, loss, kl = self.recipe.hyperparameters.batch_size, self.recipe.loss, 0.0
        # Only the divergence looks at the weights: stored rows are the same whatever was learned.
        indices = batch(len(self.rows), size, self.recipe.seed, step)
        yield from self.rows.ready(indices, "train")
        if self.mismatched is not None:
            places = span(len(self.rows), size, step)
            yield from self.mismatched.ready(places, "train")
            with engine.timed("divergence"):
                kl = mismatched.of_batch(engine, [self.mismatched[place] for place in places], loss)
        with engine.timed("data"):
            examples = [self.rows[index] for index in indices]
            return Batch(examples, loss.within(examples, kl))
