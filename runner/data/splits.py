"""Which rows are wanted, and those rows: files in their order, divided into splits, up to a number.

The survey and the training read through here alike, so both see the same rows in the same order.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Generic, Literal, Protocol, Self, TypeVar

from runner.data.findings import Finding
from runner.data.reading.files import DataFile, locate
from runner.data.reading.row_reader import RowBlock, read_file
from runner.data.rows import Row, canonical

Split = Literal["train", "validation"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows of which files are wanted; `runner.request.keys.Dataset` says what each key means."""

    train: str | Sequence[str]
    kind: str
    validation: str | Sequence[str] | None = None
    format: str = "auto"
    validation_fraction: float = 0.0
    split_seed: int = 0
    max_rows: int | None = None
    max_held_out_rows: int | None = None

    def room(self, split: Split) -> int:
        """Return how many rows a split takes at most."""
        limits = [self.max_rows, self.max_held_out_rows if split == "validation" else None]
        return min((limit for limit in limits if limit is not None), default=sys.maxsize)


def splits_of(selection: Selection) -> tuple[Split, ...]:
    """Return the splits there are."""
    alone = selection.validation is None and selection.validation_fraction == 0
    return ("train",) if alone else ("train", "validation")


def read_rows(selection: Selection, split: Split) -> Iterator[Row]:
    """Yield the good rows of a split, the same and in the same order as the survey counts them.

    Raises `DataError` if a file cannot be read.
    """
    for _, block in row_blocks(selection, (split,), lambda finding: None):
        yield from block.rows


class Part(Protocol):
    """Some rows of a block that belong to one split."""

    @property
    def lines(self) -> Sequence[int]:
        """The line that each row begins on."""

    def first(self, count: int) -> Self:
        """Return the first so many rows."""


P = TypeVar("P", bound=Part)


@dataclass(frozen=True)
class Divided(Generic[P]):
    """A block of a file by split, and what was found in its lines."""

    parts: Mapping[Split, P]
    findings: Sequence[Finding]


def row_blocks(
    selection: Selection, wanted: Sequence[Split], report: Callable[[Finding], None]
) -> Iterator[tuple[Split, RowBlock]]:
    """Yield the good rows of the splits wanted, and report what was found up to the last row that is used.

    Raises `DataError` if a file cannot be read.
    """
    for files, splits in sources(selection, wanted):
        blocks = (block for file in files for block in read_file(file, selection.format, selection.kind))
        yield from taken(selection, (divide(selection, block, splits) for block in blocks), splits, report)


def taken(
    selection: Selection, blocks: Iterable[Divided[P]], splits: Sequence[Split], report: Callable[[Finding], None]
) -> Iterator[tuple[Split, P]]:
    """Yield the parts of blocks up to the number of rows wanted, and report what was found up to the last of these."""
    room = {split: selection.room(split) for split in splits}
    for block in blocks:
        parts = {split: part.first(room[split]) for split, part in block.parts.items()}
        for split, part in parts.items():
            room[split] -= len(part.lines)
        full = not any(room.values())
        # What lies behind the last row that is used is nobody's concern with `max_rows`.
        last = max(part.lines[-1] for part in parts.values() if part.lines) if full else sys.maxsize
        for finding in block.findings:
            if (finding.line or 0) <= last:
                report(finding)
        yield from parts.items()
        if full:
            break


def bytes_of(selection: Selection) -> int:
    """Return the size of all files of a selection, as they are on disk."""
    return sum(file.path.stat().st_size for files, _ in sources(selection, splits_of(selection)) for file in files)


def sources(selection: Selection, wanted: Sequence[Split]) -> list[tuple[tuple[DataFile, ...], Sequence[Split]]]:
    """Return the files to read together with the splits that are taken from them."""
    if selection.validation is None:
        return [(locate(selection.train), wanted)]
    where = {"train": selection.train, "validation": selection.validation}
    return [(locate(where[split]), (split,)) for split in wanted]


def divide(selection: Selection, block: RowBlock, splits: Sequence[Split]) -> Divided[RowBlock]:
    """Return the part of a block that belongs to each split that is taken from its file."""
    if selection.validation is not None or selection.validation_fraction == 0:
        return Divided({splits[0]: block}, block.findings)
    # Both splits from one reading of the file, as a block is read and checked once.
    held_out = [is_held_out(row, selection.validation_fraction, selection.split_seed) for row in block.rows]
    parts = {}
    for split in splits:
        chosen = [held == (split == "validation") for held in held_out]
        lines, rows = [*compress(block.lines, chosen)], [*compress(block.rows, chosen)]
        parts[split] = block._replace(lines=lines, rows=rows)
    return Divided(parts, block.findings)


def is_held_out(row: Row, fraction: float, seed: int) -> bool:
    """Say whether a row is for validation; on average a `fraction` (0 to 1) of the prompts is.

    It is decided by the row's prompt alone: a row stays in its split when rows are added, removed or reordered, and
    rows that share a prompt are never divided between training and validation.
    """
    # Not a shuffle: a row stays where it is when others are added, taken out or put in another order.
    digest = hashlib.sha256(b"%d " % seed + canonical(row.question)).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64
