"""Which rows are wanted, and those rows: files in their order, divided into splits, up to a number.

The survey and the training read through here alike, so both see the same rows in the same order.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

from runner.data.findings import Finding
from runner.data.reading.files import DataFile, locate
from runner.data.reading.row_reader import RowBlock, read_file
from runner.data.rows import Row, canonical, canonical_lines, lines_in_order

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
    in_order: bool = False
    """Whether another order of the keys within tools makes other rows: so where our own template writes them."""

    def lines(self, rows: Sequence[Row]) -> bytes:
        """Return the lines by which rows are fingerprinted and kept, each followed by LF."""
        return lines_in_order(rows) if self.in_order else canonical_lines(rows)

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


def row_blocks(
    selection: Selection, wanted: Sequence[Split], report: Callable[[Finding], None]
) -> Iterator[tuple[Split, RowBlock]]:
    """Yield the good rows of the splits wanted, and report what was found up to the last row that is used.

    Raises `DataError` if a file cannot be read.
    """
    for files, splits in _sources(selection, wanted):
        room = {split: selection.room(split) for split in splits}
        for block in _blocks(selection, files):
            # Both splits from one reading of the file, as a block is read and checked once.
            parts = {split: _first(part, room[split]) for split, part in _divide(selection, block, splits)}
            for split, part in parts.items():
                room[split] -= len(part.rows)
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
    return sum(file.path.stat().st_size for files, _ in _sources(selection, splits_of(selection)) for file in files)


def _sources(selection: Selection, wanted: Sequence[Split]) -> list[tuple[tuple[DataFile, ...], Sequence[Split]]]:
    """Return the files to read together with the splits that are taken from them."""
    if selection.validation is None:
        return [(locate(selection.train), wanted)]
    where = {"train": selection.train, "validation": selection.validation}
    return [(locate(where[split]), (split,)) for split in wanted]


def _blocks(selection: Selection, files: Sequence[DataFile]) -> Iterator[RowBlock]:
    for file in files:
        yield from read_file(file, selection.format, selection.kind)


def _divide(selection: Selection, block: RowBlock, splits: Sequence[Split]) -> Iterator[tuple[Split, RowBlock]]:
    """Yield the part of a block that belongs to each split that is taken from its file."""
    if selection.validation is not None or selection.validation_fraction == 0:
        yield splits[0], block
        return
    held_out = [is_held_out(row, selection.validation_fraction, selection.split_seed) for row in block.rows]
    for split in splits:
        chosen = [held == (split == "validation") for held in held_out]
        yield (
            split,
            block._replace(lines=[*compress(block.lines, chosen)], rows=[*compress(block.rows, chosen)]),
        )


def _first(block: RowBlock, count: int) -> RowBlock:
    return block if len(block.rows) <= count else block._replace(lines=block.lines[:count], rows=block.rows[:count])


def is_held_out(row: Row, fraction: float, seed: int) -> bool:
    """Say whether a row is for validation; on average a `fraction` (0 to 1) of the prompts is.

    It is decided by the row's prompt alone: a row stays in its split when rows are added, removed or reordered, and
    rows that share a prompt are never divided between training and validation.
    """
    # Not a shuffle: a row stays where it is when others are added, taken out or put in another order.
    digest = hashlib.sha256(b"%d " % seed + canonical(row.question)).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64
