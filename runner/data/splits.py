"""Which rows are wanted, and those rows: files in their order, divided into splits, up to a number.

The survey and the training read through here alike, so both see the same rows in the same order.
"""

import hashlib
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Generic, Literal, Protocol, Self, TypeVar

import msgspec

from runner.data.findings import Finding
from runner.data.mixture import ALL, Mix, bound, counts, key
from runner.data.reading.files import DataFile, locate
from runner.data.reading.row_reader import RowBlock, read_file
from runner.data.rows import Row, canonical, canonical_lines, lines_in_order

Split = Literal["train", "validation"]
Bounds = tuple[tuple[str, tuple[tuple[Split, int], ...]], ...]
"""For each file of a mixture, by name, and each split: below which key its rows are taken."""


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

    mix: Mix = ()
    """The sources of a mixture, whose files `train` has."""
    bounds: Bounds | None = None
    """Of a mixture, below which key rows of each file are taken; None where `mixed` has yet to find it out."""

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


def read_with_source(selection: Selection, split: Split) -> Iterator[tuple[Row, str]]:
    """Yield the good rows of a split, each with the source of a mixture that it is from; empty where there is none.

    Raises `DataError` if a file cannot be read.
    """
    names = {file.name: name for name, each in selection.mix for file in locate(each.source)}
    for _, block in row_blocks(selection, (split,), lambda finding: None):
        source = names.get(block.file.name, "")
        yield from ((row, source) for row in block.rows)


class Part(Protocol):
    """Some rows of a block that belong to one split."""

    @property
    def lines(self) -> Sequence[int]:
        """The line that each row begins on."""

    def first(self, count: int) -> Self:
        """Return the first so many rows."""


P = TypeVar("P", bound=Part)
_BOUNDS: dict[bytes, Bounds] = {}


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
    selection = mixed(selection)
    for files, splits in sources(selection, wanted):
        blocks = (block for file in files for block in read_file(file, selection.format, selection.kind))
        yield from taken(selection, (divide(selection, block, splits) for block in blocks), splits, report)


def mixed(selection: Selection) -> Selection:
    """Return a selection with which rows of each source its mixture takes, if it is one: all its files are read.

    Raises `DataError` if a file cannot be read.
    """
    if not selection.mix or selection.bounds is not None:
        return selection
    # Once in a process: the check of the rows and each reading of a split want the same.
    stats = [file.path.stat() for file in locate(selection.train)]
    wanted = msgspec.json.encode([selection, [(stat.st_size, stat.st_mtime_ns) for stat in stats]])
    if wanted not in _BOUNDS:
        _BOUNDS[wanted] = _bounds(selection)
    return replace(selection, bounds=_BOUNDS[wanted])


def _bounds(selection: Selection) -> Bounds:
    """Return below which key rows of each file are taken for each split that is taken from the files."""
    # What a source has is counted without any limit: the limits are those of the mixture.
    whole = replace(selection, mix=(), max_rows=None, max_held_out_rows=None, validation=None)
    splits = splits_of(whole)
    source_of = {file.name: name for name, each in selection.mix for file in locate(each.source)}
    keys: dict[tuple[str, Split], array[int]] = {
        (name, split): array("Q") for name, _ in selection.mix for split in splits
    }
    for split, block in row_blocks(whole, splits, lambda finding: None):
        # Eight bytes a row, as a mixture of a million rows is no rarer than a file of so many.
        keys[source_of[block.file.name], split].extend(key(row, selection.split_seed) for row in block.rows)
    below: dict[tuple[str, Split], int] = {}
    for split in splits:
        present = [len(keys[name, split]) for name, _ in selection.mix]
        for (name, _), count in zip(selection.mix, counts(selection.mix, present, selection.room(split)), strict=True):
            below[name, split] = bound(keys[name, split], count)
    return tuple((file, tuple((split, below[name, split]) for split in splits)) for file, name in source_of.items())


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
    bounds = dict(dict(selection.bounds or ()).get(block.file.name, ()))
    if selection.validation is not None or selection.validation_fraction == 0:
        part = _below(block, bounds.get(splits[0]), selection.split_seed)
        return Divided({splits[0]: part}, block.findings)
    # Both splits from one reading of the file, as a block is read and checked once.
    held_out = [is_held_out(row, selection.validation_fraction, selection.split_seed) for row in block.rows]
    parts = {}
    for split in splits:
        part = _only(block, [held == (split == "validation") for held in held_out])
        parts[split] = _below(part, bounds.get(split), selection.split_seed)
    return Divided(parts, block.findings)


def _only(block: RowBlock, chosen: Sequence[bool]) -> RowBlock:
    return block._replace(lines=[*compress(block.lines, chosen)], rows=[*compress(block.rows, chosen)])


def _below(block: RowBlock, bound: int | None, seed: int) -> RowBlock:
    """Return the rows of a block that a mixture takes: those with a key below the bound."""
    return block if bound in (None, ALL) else _only(block, [key(row, seed) < bound for row in block.rows])


def is_held_out(row: Row, fraction: float, seed: int) -> bool:
    """Say whether a row is for validation; on average a `fraction` (0 to 1) of the prompts is.

    It is decided by the row's prompt alone: a row stays in its split when rows are added, removed or reordered, and
    rows that share a prompt are never divided between training and validation.
    """
    # Not a shuffle: a row stays where it is when others are added, taken out or put in another order.
    digest = hashlib.sha256(b"%d " % seed + canonical(row.question)).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64
