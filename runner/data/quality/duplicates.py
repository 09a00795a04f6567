"""Which rows, and which prompts, occur more than once: found by their hashes, at eight bytes each."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from runner.data.findings import Finding
from runner.data.measured import Measured


class Seen:
    """The rows met so far, in order: the place of each, and the hashes of it and of its prompt."""

    def __init__(self) -> None:
        # 64 bits: of a million different rows, two are taken for the same with a probability of 1 in 37 million.
        self.rows = array("Q")
        self.prompts = array("Q")
        self._lines = array("L")
        self._starts: list[int] = []
        self._files: list[str] = []

    def add(self, part: Measured) -> None:
        """Append further rows of a file."""
        if self._files[-1:] != [part.file.name]:
            self._starts.append(len(self._lines))
            self._files.append(part.file.name)
        self._lines.extend(part.lines)
        self.prompts.extend(part.prompts)
        self.rows.extend(part.rows)

    def by_file(self) -> dict[str, int]:
        """Return how many rows each file has, in the order of the files."""
        ends = [*self._starts[1:], len(self._lines)]
        return {file: end - start for file, start, end in zip(self._files, self._starts, ends, strict=True)}

    def place(self, row: int) -> tuple[str, int]:
        """Return file and line of the row with that number."""
        return self._files[bisect_right(self._starts, row) - 1], self._lines[row]


def find_repeats(splits: Sequence[Seen]) -> Iterator[Finding]:
    """Yield a finding for each row that came before, and for each prompt that came before with other answers."""
    rows = _repeats([split.rows for split in splits])
    for first, again in rows:
        yield _finding("row", _place(splits, first), _place(splits, again))
    same_rows = {again for _, again in rows}
    for first, again in _repeats([split.prompts for split in splits]):
        if again in same_rows:
            continue
        before, place = _place(splits, first), _place(splits, again)
        # Both answers of a pair that is split have one prompt, which is at one place.
        if place != before:
            yield _finding("prompt", before, place)


def _repeats(hashes: Sequence["array[int]"]) -> list[tuple[int, int]]:
    """Return the first position, counted through all splits, and the later one of each hash that comes again."""
    import numpy as np

    values = np.concatenate(hashes)
    # Sorted in place of a set, which takes 69 MB for a million; only what occurs twice gets into a dictionary.
    ordered = np.sort(values)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    first: dict[int, int] = {}
    found = []
    for position in np.flatnonzero(np.isin(values, repeated)).tolist():
        earlier = first.setdefault(int(values[position]), position)
        if earlier != position:
            found.append((earlier, position))
    return found


def _place(splits: Sequence[Seen], position: int) -> tuple[int, str, int]:
    """Return split, file and line of the row at a position counted through all splits."""
    number = 0
    while position >= len(splits[number].rows):
        position -= len(splits[number].rows)
        number += 1
    return number, *splits[number].place(position)


def _finding(what: str, first: tuple[int, str, int], again: tuple[int, str, int]) -> Finding:
    (first_split, *before), (split, file, line) = first, again
    if split != first_split:
        message = f"the {what} is trained on too, at {{}}:{{}}; held-out rows must be new: remove one of them"
        return Finding("warning", f"shared-{what}", file, line, message.format(*before))
    if what == "row":
        message = "the row is the same as at {}:{}; it counts twice: remove one of them"
        return Finding("warning", "duplicate-row", file, line, message.format(*before))
    message = "the prompt is the same as at {}:{}, with another answer or judgement; this is fine if it is meant"
    return Finding("note", "repeated-prompt", file, line, message.format(*before))
