"""The divergence of the policy from the reference, by prompts with answers to other prompts of the same batch.

KTO's reference point (Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1) is, for a batch of m rows,

    z = max(0, mean of log policy(y' | x) - log reference(y' | x))        y' the answer of another row of the batch

It is a number to the loss, without a gradient, and the same for every row: it is known before the gradient of the
first row is, by `forward` alone, so that any engine has it, whatever its packs, lanes and ranks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, overload

from runner.data.splits import Split
from runner.models.chat.row_tokens import TokenRow, cut
from runner.training.by_primitives import scores
from runner.training.engine import Engine
from runner.training.examples import Example
from runner.training.loss import Loss, Rows
from runner.training.recipe import Recipe
from runner.training.schedule import count_epochs, order

if TYPE_CHECKING:
    from torch import Tensor

    from runner.methods import Scores


class MismatchedRows(Sequence[TokenRow]):
    """A split's prompts, in the order of training, each with the answer to another prompt of its batch.

    Rows of all epochs, one behind the other: those of a batch are `span`, whatever was trained before. `rows` have one
    answer each; with the answer of another a row is cut after `max_length` tokens.
    """

    def __init__(self, rows: Sequence[TokenRow], max_length: int, batch_size: int, seed: int, epochs: int = 1) -> None:
        self._rows, self._max_length = rows, max_length
        self._batch_size, self._seed, self._epochs = batch_size, seed, epochs

    def __len__(self) -> int:
        return len(self._rows) * self._epochs

    @property
    def decided_by(self) -> tuple[int, int, int]:
        """What decides which answer goes with which prompt, given the rows."""
        return self._batch_size, self._seed, self._epochs

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenRow]: ...
    def __getitem__(self, index: int | slice) -> TokenRow | list[TokenRow]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        epoch, place = divmod(index, len(self._rows))
        numbers = order(len(self._rows), self._seed, epoch)
        own = self._rows[numbers[place]]
        candidates = map(self._rows.__getitem__, (numbers[each] for each in self._others(place)))
        # Both answers of a split pair may be in one batch; of such a one the answer is not mismatched.
        other = next((row for row in candidates if row.prompt != own.prompt), self._rows[numbers[place - 1]])
        return cut(TokenRow(own.prompt, other.answers, other.learned, own.images), self._max_length)

    def _others(self, place: int) -> Iterable[int]:
        """Yield the places that an answer may come from: the row before, as in TRL, and so on round the batch."""
        start = place - place % self._batch_size
        size = min(self._batch_size, len(self._rows) - start)
        yield from (start + (place - start - back) % size for back in range(1, size))
        # The last batch of an epoch may be a single row, or have one prompt throughout.
        yield from (start - back for back in range(1, start + 1))


def mismatched_rows(
    tokens: Mapping[Split, Sequence[TokenRow]], split: Split, recipe: Recipe, max_length: int
) -> MismatchedRows | None:
    """Return those of a split by its tokens; None where there is no such split, or the recipe's loss asks for none.

    Held-out rows are one batch, in an order of their own: neighbours in a file often are answers to one prompt.
    """
    rows = tokens.get(split, ())
    if not rows or not recipe.loss.needs_kl:
        return None
    # An evaluation has no batches, and the more rows the less noise in z.
    if split == "validation":
        return MismatchedRows(rows, max_length, len(rows), recipe.seed)
    size = recipe.hyperparameters.batch_size
    return MismatchedRows(rows, max_length, size, recipe.seed, count_epochs(recipe.num_steps, size, len(rows)))


class LogRatios(Loss):
    """In place of the loss, the log-ratio of policy to reference of each row, in nats."""

    def __call__(self, examples: Sequence[Example], policy: "Scores") -> dict[str, "Tensor"]:
        """Return the log-ratios as `loss`, shape (rows,)."""
        reference = policy.logps.new_tensor([example.reference_logps for example in examples])
        return {"loss": (policy.logps - reference).sum(1)}

    def weight(self, example: Example) -> float:
        """Return 1: each row counts the same."""
        # As in the paper, whatever weight the method gives rows in its loss.
        return 1.0


def of_batch(engine: Engine, mismatched: Sequence[Example], loss: Loss) -> float:
    """Return the divergence z of a batch in nats, under the engine's weights as they are; at least 0."""
    rows = [example.tokens for example in mismatched]
    policy = scores(rows, engine.forward(rows), by_token=False)
    return divergence(log_ratios(loss).rows(mismatched, policy))


def log_ratios(loss: Loss) -> LogRatios:
    """Return what gives rows' log-ratios in place of a loss."""
    return LogRatios(loss.method, loss.hyperparameters)


def divergence(rows: Rows) -> float:
    """Return z of rows whose log-ratios `log_ratios` gave."""
    return max(0.0, sum(row["loss"] for row in rows) / len(rows))
