"""The reference's log-probabilities by `forward` of the session before its first step, kept by row.

Before the first step, and never later: an adapter cannot be switched off at a service, and a reference that was
taken from the weights that a run resumes from would have moved. They are the trainer's own numbers, so that a loss
begins at exactly log 2; the user's cache keeps them, too, for the trials of a sweep.
"""

import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runner import cache, methods
from runner.backends.local.training.training_data import TrainingData
from runner.data.splits import Split
from runner.errors import ServiceError
from runner.models.chat.tokenizer import ChatTokenizer, TokenRow
from runner.record import layout
from runner.record.events import Event, Progress
from runner.remote.engine.remote_engine import RemoteEngine
from runner.remote.engine.service import FloatArray
from runner.remote.target import Target
from runner.training.by_primitives import ROWS, scores
from runner.training.examples import Reference, StoredExamples
from runner.training.mismatched import MismatchedRows, mismatched_rows

if TYPE_CHECKING:
    from runner.plan import Run


class Stored(Reference):
    """Log-probabilities that are all known, shape (rows, answers)."""

    def __init__(self, logps: FloatArray) -> None:
        self._logps = logps

    def __getitem__(self, number: int, /) -> tuple[float, ...]:
        return tuple(self._logps[number].tolist())

    def compute(self, numbers: Iterable[int], step: str) -> Generator[Event, None, None]:
        """Compute nothing: all were computed before the first step."""
        yield from ()


def read(path: Path, identity: str) -> dict[str, Stored] | None:
    """Return the reference of each split, out of a run's folder or the user's cache; None where there is none yet."""
    if not path.exists():
        cached = _cached(identity)
        if not cached.exists():
            return None
        # Into the run's folder, which nobody clears: a run that has begun could not compute it again.
        shutil.copy(cached, path)
    with np.load(path) as found:
        return {split: Stored(found[split]) for split in found.files}


def compute(
    engine: RemoteEngine, splits: Mapping[str, Sequence[TokenRow]], path: Path, identity: str
) -> Generator[Event, None, None]:
    """Compute the reference of all rows by a session that has not taken a step, and keep it."""
    total = sum(map(len, splits.values()))
    found: dict[str, list[FloatArray]] = {split: [] for split in splits}
    done = 0
    for split, tokens in splits.items():
        for start in range(0, len(tokens), ROWS):
            yield Progress("train", done, total, what="reference log-probabilities")
            # As many rows as an evaluation asks for at a time.
            part = [tokens[number] for number in range(start, min(start + ROWS, len(tokens)))]
            found[split].append(scores(part, engine.forward(part), by_token=False).logps.numpy())
            done += len(part)
    arrays = {split: np.concatenate(parts) for split, parts in found.items()}
    _write(path, arrays)
    cached = _cached(identity)
    cached.parent.mkdir(parents=True, exist_ok=True)
    _write(cached, arrays)


def identity(parts: Sequence[object]) -> str:
    """Return the name of a reference in the user's cache, by all that decides it: the model and the rows."""
    return sha256(repr(list(parts)).encode()).hexdigest()[:32]


def _write(path: Path, arrays: Mapping[str, FloatArray]) -> None:
    # Renamed once it is whole: a process that is killed here computes them again.
    # numpy appends .npz to any other ending.
    draft = path.with_name(f".{path.name}.draft.npz")
    np.savez(draft, allow_pickle=False, **arrays)
    draft.replace(path)


def _cached(identity: str) -> Path:
    return cache.user_folder() / "remote_reference" / f"{identity}.npz"


def _mismatched(split: Split) -> str:
    return f"{split}, mismatched"


class RunRows:
    """The rows of a run as tokens, with the reference that a loss compares with, if it does."""

    def __init__(self, run: "Run", target: Target, endpoint: str) -> None:
        self.run, self.target, self._endpoint = run, target, endpoint
        self._path = run.folder / layout.REFERENCE_LOGPS

    def tokens(self, split: Split) -> Sequence[TokenRow]:
        """Return a split's rows as tokens; none where there is no such split."""
        return self.data.tokens.get(split, ())

    def examples(self, split: Split) -> StoredExamples:
        """Return a split's rows as the training loop asks for them."""
        return StoredExamples(self.tokens(split), (self._known or {}).get(split), self.data.with_targets(split))

    def mismatched(self, split: Split) -> StoredExamples | None:
        """Return a split's prompts with answers to others, if the loss is relative to the divergence."""
        rows = self._mismatched.get(split)
        return None if rows is None else StoredExamples(rows, (self._known or {}).get(_mismatched(split)))

    def ensure_reference(self, engine: RemoteEngine) -> Generator[Event, None, None]:
        """Compute the reference by the engine's session, which must not have taken a step, unless it is there.

        Raises `ServiceError` where the session has.
        """
        if self._known is not None:
            return
        ledger = engine.driver.ledger
        # The adapter cannot be switched off at a service: after a step the reference is out of reach.
        if ledger.checkpoint is not None or ledger.entries:
            raise ServiceError(
                f"{self._path}: the reference's log-probabilities are gone, and the session has taken steps since; "
                "give the same command with again=true."
            )
        engine.training_now = False
        rows: dict[str, Sequence[TokenRow]] = {split: self.tokens(split) for split in self.run.plan.splits}
        rows |= {_mismatched(split): each for split, each in self._mismatched.items()}
        yield from compute(engine, rows, self._path, self._identity)
        del self.__dict__["_known"]  # so that it is read from the file that was written

    @cached_property
    def data(self) -> TrainingData:
        """The rows, and their tokens on disk."""
        kind = methods.load(self.run.plan.method).kind
        return TrainingData(self.run, kind, self.tokenizer, self.target.settings.max_length)

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer of the base model."""
        return ChatTokenizer(self.target.tokenizer_folder(), sees=True)

    @cached_property
    def _mismatched(self) -> dict[Split, MismatchedRows]:
        recipe = self.target.recipe(self.run, methods.load(self.run.plan.method))
        tokens, most = self.data.tokens, self.target.settings.max_length
        found = {split: mismatched_rows(tokens, split, recipe, most) for split in self.run.plan.splits}
        return {split: rows for split, rows in found.items() if rows is not None}

    @cached_property
    def _known(self) -> dict[str, Stored] | None:
        return read(self._path, self._identity)

    @property
    def _identity(self) -> str:
        origin, splits = self.target.origin, self.run.plan.splits
        rows: list[object] = [(split, each.fingerprint) for split, each in splits.items()]
        # Which answer goes with which prompt follows from the order of training.
        rows += [(split, *each.decided_by) for split, each in self._mismatched.items()]
        model = [self._endpoint, origin.base_model, origin.state]
        return identity([*model, self.tokenizer.digest, self.target.settings.max_length, *rows])
