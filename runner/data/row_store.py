"""The rows of a split on disk, mapped into memory: any row by its number, however many there are.

    lines.jsonl    the rows' canonical lines; their sha256 is the split's fingerprint
    ends.npy       where each line ends, in bytes: uint64, shape (rows,)

A Python object takes some kilobytes per row; here a row that is not being looked at takes eight bytes.
"""

import mmap
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import msgspec
import numpy as np

from runner import cache
from runner.data import kinds
from runner.data.rows import IMAGES, Row

LINES, ENDS = "lines.jsonl", "ends.npy"


class RowStore(Sequence[Row]):
    """The rows of a folder that `write_rows` wrote, in their order."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._ends = np.load(folder / ENDS, mmap_mode="r")
        with (folder / LINES).open("rb") as file:
            # Mapped, so that trials and ranks of this machine share the pages that are read.
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._decoder: msgspec.json.Decoder[Row] = msgspec.json.Decoder(kinds.load(kind))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return self._decoder.decode(self.line(index))

    def line(self, number: int) -> bytes:
        """Return the canonical line of a row, without its LF. Raises `IndexError` beyond the last row."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        start = int(self._ends[number - 1]) if number else 0
        return self._lines[start : int(self._ends[number]) - 1]

    def longest(self, start: int, end: int) -> int:
        """Return the bytes of the longest line from row `start` up to, not including, row `end`."""
        before = [self._ends[start - 1]] if start else [np.uint64(0)]
        return int(np.diff(self._ends[start:end], prepend=np.asarray(before, "<u8")).max())

    def hold_images(self, start: int, end: int) -> bool:
        """Say whether one of the rows from `start` up to, not including, `end` holds images."""
        before = int(self._ends[start - 1]) if start else 0
        return self._lines.find(IMAGES, before, int(self._ends[end - 1])) >= 0


def write_rows(folder: Path, blocks: Iterable[tuple[Sequence[Row], bytes]]) -> None:
    """Write rows that come in blocks, each with its canonical lines, into an empty folder."""
    ends, end = array("Q"), 0
    with (folder / LINES).open("wb") as file:
        for _, lines in blocks:
            file.write(lines)
            ends.extend(_ends(lines, end))
            end += len(lines)
    np.save(folder / ENDS, np.asarray(ends, "<u8"))
    # Before the folder gets its name (cache.py): what is found there is whole.
    cache.sync(folder / LINES)
    cache.sync(folder / ENDS)


def _ends(lines: bytes, start: int) -> Iterator[int]:
    """Yield where each line ends. Canonical JSON escapes line breaks inside texts, so each LF ends a line."""
    found = np.flatnonzero(np.frombuffer(lines, np.uint8) == 10) + (start + 1)
    yield from found.tolist()
