"""A split's rows in numbers, gathered block by block and summed up at the end."""

import hashlib
from array import array
from collections.abc import Iterable
from typing import NamedTuple

from runner.data.checks import SYSTEM_ROLES
from runner.data.reading import RowBlock
from runner.data.repeats import Seen
from runner.data.rows import Message, Pair, Row, prompt_of


class Spread(NamedTuple):
    """Least, median and greatest over the rows of a split; all 0 if it has none."""

    least: int
    median: int
    greatest: int


class SplitSurvey(NamedTuple):
    """The rows of a split in numbers.

    `fingerprint` is the sha256 of their canonical lines (what `sha256sum` says of a file of them), so format,
    container and refused rows do not change it. `bytes` is the length of those lines. `turns` counts those of
    prompt and answer; characters are those of an answer's last turn; conversations have none rejected.
    """

    rows: int
    fingerprint: str
    bytes: int
    with_system: int
    turns: Spread
    answer_characters: Spread
    rejected_characters: Spread


class Tally:
    """Takes the rows of a split as they come; keeps forty bytes of each."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._sha256 = hashlib.sha256()
        self._bytes = self._with_system = 0
        self._turns, self._answers, self._rejected = array("I"), array("I"), array("I")

    def take(self, block: RowBlock, canonical: bytes) -> None:
        """Add a block's rows, given with their canonical lines."""
        self._sha256.update(canonical)
        self._bytes += len(canonical)
        rows = block.rows
        prompts = list(map(prompt_of, rows))
        answers = list(map(_answer, rows))
        rejected = [row.rejected for row in rows if isinstance(row, Pair)]
        self.seen.add(block.file.name, block.lines, prompts, rows)
        self._with_system += sum([prompt[0].role in SYSTEM_ROLES for prompt in prompts])
        self._turns.fromlist([len(prompt) + len(answer) for prompt, answer in zip(prompts, answers)])
        self._answers.fromlist(_characters(answers))
        self._rejected.fromlist(_characters(rejected))

    def sum(self) -> SplitSurvey:
        """Return the numbers of all rows taken."""
        return SplitSurvey(
            rows=len(self._turns),
            fingerprint=self._sha256.hexdigest(),
            bytes=self._bytes,
            with_system=self._with_system,
            turns=_spread(self._turns),
            answer_characters=_spread(self._answers),
            rejected_characters=_spread(self._rejected),
        )


def _answer(row: Row) -> tuple[Message, ...]:
    return row.chosen if isinstance(row, Pair) else row.messages[len(prompt_of(row)) :]


def _characters(answers: Iterable[tuple[Message, ...]]) -> list[int]:
    return [len(answer[-1].content or "") for answer in answers]


def _spread(values: "array[int]") -> Spread:
    import numpy as np

    if not values:
        return Spread(0, 0, 0)
    numbers = np.asarray(values)
    return Spread(int(numbers.min()), int(np.median(numbers)), int(numbers.max()))
