"""The token ids of a split on disk, mapped into memory: tokenised a block at a time, when a row of it is first needed.

Each block is an entry of the user's cache, named by the rows' fingerprint, the tokenizer and the length limit, so that
runs, trials and ranks share it. A Python list takes 36 bytes a token; these files take 5, and none of them in memory
but what is being looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import chain, pairwise
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from runner import cache as user_cache
from runner.data.row_store import RowStore
from runner.errors import DataError
from runner.models.chat.tokenizer import ChatTokenizer, TokenRow

BLOCK_ROWS = 4096
"""Rows tokenised together, in 2 to 3 s. The reference's packs end with a block, too (reference_cache.py)."""
MANY_BLOCK_ROWS = 512
"""The same where a batch visits many blocks of a large data set: its first step then waits 5 s and not 40."""
# Part of the name of every block, so that older blocks are simply not found.
FORMAT = 1
"""Raised when rows are tokenised otherwise, or stored otherwise."""


def block_rows(num_rows: int) -> int:
    """Return the rows of a block of a split with so many rows."""
    return BLOCK_ROWS if num_rows <= BLOCK_ROWS else min(BLOCK_ROWS, MANY_BLOCK_ROWS)


@dataclass(frozen=True)
class Block:
    """The tokens of some rows, T in all, one row behind the other: its prompt, then each of its answers.

    `ids` (T,) uint32; `learned` (T,) bool; `bounds` (rows, answers + 2): where a row's prompt begins and ends, and
    where each of its answers ends.
    """

    ids: NDArray[np.uint32]
    learned: NDArray[np.bool_]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[TokenRow]) -> "Block":
        """Return rows, which all have as many answers, as a block."""
        parts = [[row.prompt, *row.answers] for row in rows]
        ends = np.cumsum([len(part) for row in parts for part in row]).reshape(len(rows), -1)
        # A row begins where the last answer of the one before ends.
        starts = np.concatenate([[0], ends[:-1, -1]])
        unlearned = [[[False] * len(row.prompt), *row.learned] for row in rows]
        return cls(
            # Straight into an array of known length, without one more list of all tokens of the block.
            np.fromiter(chain.from_iterable(chain.from_iterable(parts)), np.uint32, ends[-1, -1]),
            np.fromiter(chain.from_iterable(chain.from_iterable(unlearned)), np.bool_, ends[-1, -1]),
            np.concatenate([starts[:, None], ends], axis=1),
        )

    @classmethod
    def read(cls, folder: Path) -> "Block":
        """Map the block that `write` wrote into a folder."""
        # Mapped: pages come from the disk when they are looked at, and the system may drop them again.
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "learned", "bounds")))

    def write(self, folder: Path) -> None:
        """Write the block into an empty folder."""
        for name, array in vars(self).items():
            np.save(folder / f"{name}.npy", array)
            user_cache.sync(folder / f"{name}.npy")

    def row(self, number: int) -> TokenRow:
        """Return the row with that number in the block."""
        begin, *bounds = self.bounds[number].tolist()
        answers = list(pairwise(bounds))
        return TokenRow(
            self.ids[begin : bounds[0]].tolist(),
            tuple(self.ids[start:end].tolist() for start, end in answers),
            tuple(self.learned[start:end].tolist() for start, end in answers),
        )


class TokenStore(Sequence[TokenRow]):
    """The rows of a split as tokens, in their order.

    `folder` is where blocks are kept and `fingerprint` that of the rows. Where the tokens of a row are asked for,
    raises `DataError` if a row of its block cannot be learned, with the split and the row's number.
    """

    def __init__(
        self, folder: Path, rows: RowStore, fingerprint: str, tokenizer: ChatTokenizer, max_length: int, split: str
    ) -> None:
        self._folder, self._rows, self._tokenizer = folder, rows, tokenizer
        self._max_length, self._split = max_length, split
        self._block_rows = block_rows(len(rows))
        # All that decides the ids, so that a block is found by whoever would make the same.
        decided_by = f"{FORMAT} {fingerprint} {tokenizer.digest} {max_length} {self._block_rows}"
        self._key = sha256(decided_by.encode()).hexdigest()[:32]
        # A mapped block costs addresses, hardly memory; opening its three files for each row would cost time.
        self.block = cache(self._block)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> TokenRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenRow]: ...
    def __getitem__(self, index: int | slice) -> TokenRow | list[TokenRow]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        found = self.block(index // self._block_rows).row(index % self._block_rows)
        placeholder = self._tokenizer.placeholder
        # Of a row with images its tokens are stored, and where the images are among them is found again.
        if placeholder is None or placeholder not in chain(found.prompt, *found.answers):
            return found
        return self._tokenizer.with_images(found, self._rows[index])

    @property
    def num_blocks(self) -> int:
        """How many blocks the rows make."""
        return -(-len(self) // self._block_rows)  # rounded up

    def lengths(self, number: int) -> list[int]:
        """Return the tokens of each row of a block, a shared prompt counted once."""
        bounds = self.block(number).bounds
        lengths: list[int] = (bounds[:, -1] - bounds[:, 0]).tolist()
        return lengths

    def unchecked(self) -> list[int]:
        """Return the blocks that have a row long enough to fill `max_length` with its prompt alone.

        Such a row stops a run, and had better do so before the first step: a token takes a byte at least. Blocks with
        images are among them: an image takes as many tokens as it likes, and has to fit as a whole.
        """

        def is_suspect(number: int) -> bool:
            start = number * self._block_rows
            rows = start, min(start + self._block_rows, len(self))
            return self._rows.longest(*rows) > self._max_length or self._rows.hold_images(*rows)

        return [number for number in range(self.num_blocks) if is_suspect(number)]

    def _block(self, number: int) -> Block:
        name = f"{self._key}-{number:06}"
        return Block.read(user_cache.entry(self._folder, name, lambda folder: self._tokenised(number).write(folder)))

    def _tokenised(self, number: int) -> Block:
        start = number * self._block_rows
        found: list[TokenRow] = []
        try:
            # One by one, so that the number of the refused row is known; `rows` itself tokenises in batches.
            for row in self._tokenizer.rows(self._rows[start : start + self._block_rows], self._max_length):
                found.append(row)
        except DataError as error:
            raise DataError(f"dataset.{self._split}, row {start + len(found) + 1}: {error}") from error
        return Block.of(found)
