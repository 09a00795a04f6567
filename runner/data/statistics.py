"""A split's rows in numbers, gathered block by block and summed up at the end."""

import hashlib
from array import array
from concurrent.futures import Executor, Future
from typing import NamedTuple

from runner.data.measured import Measured
from runner.data.quality.duplicates import Seen


class Spread(NamedTuple):
    """Least, median and greatest over the rows of a split; all 0 if it has none."""

    least: int
    median: int
    greatest: int


class SplitSurvey(NamedTuple):
    """The rows of a split in numbers.

    `fingerprint` is the sha256 of their canonical lines (what `sha256sum` says of a file of them), so format,
    container and refused rows do not change it. `bytes` is the length of those lines. `turns` counts those of
    prompt and answer, a pair's chosen one; characters are those of that answer's last turn.
    """

    rows: int
    fingerprint: str
    bytes: int
    with_tools: int
    with_images: int
    turns: Spread
    answer_characters: Spread


# Hashing a million rows takes half a second, in which `hashlib` lets other threads run. It is done in large pieces: on
# a busy machine each change of threads can cost milliseconds.
PIECE_BYTES = 16 << 20


class Fingerprint:
    """A sha256 that is fed part by part; the thread is at most a piece behind."""

    def __init__(self, helper: Executor) -> None:
        self._helper = helper
        self._sha256 = hashlib.sha256()
        self._parts: list[bytes] = []
        self._size = 0
        self._running: Future[None] | None = None

    def update(self, part: bytes) -> None:
        """Take a further part."""
        self._parts.append(part)
        self._size += len(part)
        if self._size >= PIECE_BYTES:
            self._hand_over()

    def hexdigest(self) -> str:
        """Return the hash of all parts, in hexadecimal digits."""
        self._hand_over()
        self._wait()
        return self._sha256.hexdigest()

    def _hand_over(self) -> None:
        """Let the thread hash what has gathered, once it is done with what it had before."""
        self._wait()
        # One piece ahead at most: more would gather in memory where the disk reads faster than a core hashes.
        self._running = self._helper.submit(self._hash, self._parts)
        self._parts, self._size = [], 0

    def _hash(self, parts: list[bytes]) -> None:
        for part in parts:
            self._sha256.update(part)

    def _wait(self) -> None:
        if self._running is not None:
            self._running.result()


class Tally:
    """Takes the rows of a split as they come; keeps forty bytes of each."""

    def __init__(self, helper: Executor) -> None:
        self.seen = Seen()
        self._fingerprint = Fingerprint(helper)
        self._bytes = self._with_tools = self._with_images = 0
        self._turns, self._answers = array("I"), array("I")

    @property
    def rows(self) -> int:
        """How many rows were taken."""
        return len(self._turns)

    def take(self, part: Measured) -> None:
        """Add the split's rows of a block."""
        self._fingerprint.update(part.canonical)
        self._bytes += len(part.canonical)
        self.seen.add(part)
        self._with_tools += part.with_tools.count(1)
        self._with_images += part.with_images.count(1)
        self._turns.extend(part.turns)
        self._answers.extend(part.answer_characters)

    def sum(self) -> SplitSurvey:
        """Return the numbers of all rows taken."""
        return SplitSurvey(
            rows=self.rows,
            fingerprint=self._fingerprint.hexdigest(),
            bytes=self._bytes,
            with_tools=self._with_tools,
            with_images=self._with_images,
            turns=_spread(self._turns),
            answer_characters=_spread(self._answers),
        )


def _spread(values: "array[int]") -> Spread:
    import numpy as np

    if not values:
        return Spread(0, 0, 0)
    numbers = np.asarray(values)
    # The median, as means of lengths are drawn by a few very long rows.
    return Spread(int(numbers.min()), int(np.median(numbers)), int(numbers.max()))
