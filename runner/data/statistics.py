"""A split's rows in numbers, gathered block by block and summed up at the end."""

from array import array
from collections.abc import Sequence
from concurrent.futures import Executor
from operator import add
from typing import NamedTuple

from runner.data.fingerprint import Fingerprint
from runner.data.quality.duplicates import Seen
from runner.data.quality.text_rules import holds
from runner.data.reading.row_reader import RowBlock
from runner.data.rows import Row, Turns, text_of, uses_tools


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
    turns: Spread
    answer_characters: Spread


class Tally:
    """Takes the rows of a split as they come; keeps forty bytes of each."""

    def __init__(self, helper: Executor) -> None:
        self.seen = Seen()
        self._fingerprint = Fingerprint(helper)
        self._bytes = self._with_tools = 0
        self._turns, self._answers = array("I"), array("I")

    @property
    def rows(self) -> int:
        """How many rows were taken."""
        return len(self._turns)

    def take(self, block: RowBlock, canonical: bytes) -> None:
        """Add a block's rows, given with their canonical lines."""
        self._fingerprint.update(canonical)
        self._bytes += len(canonical)
        prompts, answers = columns(block.rows)
        self.seen.add(block.file.name, block.lines, prompts, block.rows)
        self._with_tools += _lines_with_tools(canonical)
        # `fromlist` and `map`, not a loop: this runs for every row of a million.
        self._turns.fromlist(list(map(add, map(len, prompts), map(len, answers))))
        self._answers.fromlist([len(text_of(answer)) for answer in answers])

    def sum(self) -> SplitSurvey:
        """Return the numbers of all rows taken."""
        return SplitSurvey(
            rows=self.rows,
            fingerprint=self._fingerprint.hexdigest(),
            bytes=self._bytes,
            with_tools=self._with_tools,
            turns=_spread(self._turns),
            answer_characters=_spread(self._answers),
        )


def columns(rows: Sequence[Row]) -> tuple[list[Turns], list[Turns]]:
    """Return prompts and answers of rows, those of pairs the chosen ones."""
    return [row.question for row in rows], [row.answer for row in rows]


def _lines_with_tools(canonical: bytes) -> int:
    """Return how many rows declare, call or answer tools."""
    # Few files have tools; four bytes are looked for in the whole block before any line is.
    if not holds(canonical, b'"too'):
        return 0
    return sum(map(uses_tools, canonical.splitlines()))


def _spread(values: "array[int]") -> Spread:
    import numpy as np

    if not values:
        return Spread(0, 0, 0)
    numbers = np.asarray(values)
    # The median, as means of lengths are drawn by a few very long rows.
    return Spread(int(numbers.min()), int(np.median(numbers)), int(numbers.max()))
