"""What the training loop learns from: tokens, and the reference's log-probabilities where a loss compares with them."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from runner.data.rows import Row
from runner.models.chat.tokenizer import TokenRow
from runner.record.events import Event


@dataclass(frozen=True)
class Rewarded:
    """How a row's sampled answers did: the advantage of each, and of each learned token, answer after answer, the
    log-probability under the policy that sampled and under the reference; None where that is not asked for.
    """

    advantages: tuple[float, ...]
    old_logps: Sequence[float] | None = None
    reference_logps: Sequence[float] | None = None


@dataclass(frozen=True)
class Example:
    """A row ready to be learned from: its tokens, and the reference's log-probability of each answer, in nats.

    `targets` are what a loss needs of the row other than its tokens (`Row.targets`).
    """

    tokens: TokenRow
    reference_logps: tuple[float, ...] | None
    targets: tuple[float, ...] = ()
    rewarded: Rewarded | None = None

    @property
    def num_learned(self) -> tuple[int, ...]:
        """Tokens that the loss sees, an answer at a time."""
        return num_learned(self.tokens)


def num_learned(row: TokenRow) -> tuple[int, ...]:
    """Return how many tokens of each answer are scored; the first of a text has nothing to be predicted from."""
    first = 0 if row.prompt else 1
    return tuple(sum(learned[first:]) for learned in row.learned)


def num_tokens(row: TokenRow) -> int:
    """Return the tokens that a model computes for a row: the prompt once and every answer."""
    return len(row.prompt) + sum(map(len, row.answers))


class Examples(Protocol):
    """The rows of a split, by number. Nothing is computed for rows that nobody asks for."""

    def __len__(self) -> int:
        """Return how many rows there are."""

    def __getitem__(self, number: int, /) -> Example:
        """Return a row that `ready` has been asked for."""

    def ready(self, numbers: Iterable[int], step: str) -> Generator[Event, None, None]:
        """Compute what is missing for some rows, and report how far that is as progress of `step`."""


@dataclass(frozen=True)
class Mismatched:
    """Prompts with answers to others (mismatched.py), of training and of held-out rows; None where no loss asks."""

    train: Examples | None = None
    held_out: Examples | None = None


NONE_MISMATCHED = Mismatched()
"""For a loss that asks for none."""


class Reference(Protocol):
    """The log-probabilities of some rows' answers under the model as it was before training."""

    def __getitem__(self, number: int, /) -> tuple[float, ...]:
        """Return those of a row's answers, in nats, for which `compute` has been asked."""

    def compute(self, numbers: Iterable[int], step: str) -> Generator[Event, None, None]:
        """Make those of some rows known, and report how far that is as progress of `step`."""


class StoredExamples:
    """Rows as tokens, with the reference that a loss compares with, if it does, and `rows` if they have targets."""

    def __init__(
        self, tokens: Sequence[TokenRow], reference: Reference | None, rows: Sequence[Row] | None = None
    ) -> None:
        self.tokens, self.reference, self.rows = tokens, reference, rows

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, number: int) -> Example:
        # Decoded for each batch: a few microseconds, and only of rows that have targets.
        targets = self.rows[number].targets() if self.rows else ()
        return Example(self.tokens[number], self.reference[number] if self.reference else None, targets)

    def ready(self, numbers: Iterable[int], step: str) -> Generator[Event, None, None]:
        """Compute the reference's log-probabilities that are missing."""
        if self.reference is not None:
            yield from self.reference.compute(numbers, step)
