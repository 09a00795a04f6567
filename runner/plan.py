"""A plan: a frozen value that holds all that decides the result, and nothing else.

The sha256 of its canonical JSON is the plan id. Names, folders, tracking and how the work is done are not in it: the
same experiment has the same id wherever and whenever it is asked for. planning.py makes plans.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import msgspec

from runner.data.json_value import Json
from runner.data.rows import Row
from runner.data.splits import Selection, Split, row_blocks
from runner.data.survey import Survey
from runner.errors import DataError
from runner.evaluation.rehearsal.rehearsed import Rehearsed
from runner.models.source import ModelIdentity
from runner.record import run_folders
from runner.request.keys import Request

FORMAT = 2
"""Version of what a plan holds; raised when the same request has another result.

It is in the plan id: what an earlier version has finished is another plan, and is not taken for this one's result.
"""
DATA = ("train", "validation", "validation_fraction", "split_seed", "max_rows")
"""Keys under `dataset` that say which rows are taken."""


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """The rows of a split: how many, and the fingerprint of their content in canonical form."""

    rows: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a run. `hyperparameters` and `settings` hold no `auto` that the runner decides."""

    format: int
    method: str
    hyperparameters: dict[str, Json]
    train: DataIdentity
    validation: DataIdentity | None
    model: ModelIdentity
    backend: str
    settings: dict[str, Json]
    evaluation: dict[str, Json]
    seed: int

    @property
    def splits(self) -> dict[Split, DataIdentity]:
        """The rows of each split that there is."""
        return {"train": self.train, "validation": self.validation} if self.validation else {"train": self.train}

    @cached_property
    def canonical(self) -> bytes:
        """The plan as JSON with sorted keys and no spaces."""
        # Sorted keys: the id must not depend on the order in which fields were written, or a key was typed.
        return msgspec.json.encode(msgspec.to_builtins(self), order="deterministic")

    @cached_property
    def id(self) -> str:
        """sha256 of the canonical JSON, in hexadecimal."""
        return sha256(self.canonical).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Run:
    """A plan with what is needed to carry it out.

    `request` has its backend's `auto` resolved, and `hyperparameters` are resolved too. `folder` is where the
    run lives.
    """

    plan: Plan
    request: Request
    hyperparameters: Any
    selection: Selection
    folder: Path
    survey: Survey | None = None
    """What the check of the data found; None where the run was read from its folder."""

    @property
    def handle(self) -> str:
        """What other commands call the run: its name where they look by themselves, else its folder."""
        return run_folders.handle(self.folder)

    @property
    def trial_name(self) -> str | None:
        """What the run is called by the sweep that it is a trial of, if there is one."""
        sweep, runs = self.request.sweep, Path(self.request.runs_folder)
        return run_folders.trial_name(sweep, self.plan.id, runs) if sweep else None

    @property
    def sources(self) -> dict[str, int]:
        """How many held-out rows each source of a mixture has, in the order in which rows are read; else empty."""
        return msgspec.convert(self.plan.evaluation.get("sources", {}), dict[str, int])

    def held_out(self) -> Iterator[tuple[Row, str]]:
        """Read the rows that models are asked, the held-out ones, else those of training, as `with_source` has them."""
        return self.with_source(self.rows("validation" if self.plan.validation else "train"))

    def with_source(self, held_out: Iterable[Row]) -> Iterator[tuple[Row, str]]:
        """Yield held-out rows, all in their order, each with its source of a mixture; empty where there is none."""
        names = chain.from_iterable(repeat(name, count) for name, count in self.sources.items())
        return zip(held_out, chain(names, repeat("")), strict=False)

    def rows(self, split: Split) -> Iterator[Row]:
        """Read the rows of a split that the plan is made of; none where there is no such split.

        Raises `DataError` after the last row if they are not those of the plan.
        """
        for rows, _ in self.row_blocks(split):
            yield from rows

    def row_blocks(self, split: Split) -> Iterator[tuple[list[Row], bytes]]:
        """Read the same rows block by block, each block with its canonical lines.

        Raises `DataError` after the last block if they are not those of the plan: the files may have been replaced
        since, hours ago in a sweep.
        """
        planned = self.plan.splits.get(split)
        if planned is None:
            return
        # Over the lines as they are read, not a file's own hash: the same rows in another format are the same plan.
        digest, count = sha256(), 0
        for _, block in row_blocks(self.selection, (split,), lambda finding: None):
            lines = self.selection.lines(block.rows)
            digest.update(lines)
            count += len(block.rows)
            yield block.rows, lines
        if digest.hexdigest() != planned.fingerprint:
            raise DataError(_changed(self.selection, split, planned.rows, count))


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A run with what explains it: what is in the data, and the reason for each value chosen, by key."""

    run: Run
    survey: Survey
    reasons: Mapping[str, str]
    rehearsed: Sequence[Rehearsed] = ()
    """What became of each grader on the answers that the data has."""
    left_out: Sequence[str] = ()
    """A sentence for the keys that were set and that the backend does not take."""


def flat_params(run: Run) -> dict[str, object]:
    """Return the resolved plan by the keys people type: `dpo.n_epochs`, `backend.lora.rank`, `model.source`."""
    plan, dataset = run.plan, run.request.dataset
    nested = {
        "method": plan.method,
        plan.method: plan.hyperparameters,
        "backend": {"name": plan.backend, **plan.settings},
        "model": {"source": plan.model.source, "digest": plan.model.digest},
        "dataset": {key: getattr(dataset, key) for key in DATA},
        "evaluation": plan.evaluation,
        "seed": plan.seed,
    }
    return dict(flatten(nested))


def _changed(selection: Selection, split: Split, planned: int, found: int) -> str:
    """Say how the rows of a split differ from those that were planned."""
    own = split == "validation" and selection.validation is not None
    where = selection.validation if own else selection.train
    files = where if isinstance(where, str) else ", ".join(where or ())
    change = f"{planned:,} rows were planned, now there are {found:,}"
    if planned == found:
        change = f"it still has {found:,} rows, but with other content"
    return (
        f"dataset.{'validation' if own else 'train'}: {files} has changed since the run was planned: {change}; "
        "restore it, or give the command again to plan a run with the new rows."
    )


def flatten(values: object, whole: Container[str] = (), prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield nested values by the keys people type, `backend.lora.rank`; a key of `whole` may hold a mapping."""
    for key, value in values.items() if isinstance(values, Mapping) else ():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in whole:
            yield from flatten(value, whole, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
