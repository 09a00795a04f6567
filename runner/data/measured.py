"""What a survey needs of a block's rows, so that no row is kept, or sent from one process to another."""

from array import array
from collections.abc import Callable, Sequence
from operator import add
from typing import NamedTuple, Self

from xxhash import xxh3_64_intdigest

from runner.data.findings import Finding
from runner.data.quality.text_rules import odd_rows
from runner.data.reading.files import DataFile
from runner.data.reading.row_reader import RowBlock
from runner.data.rows import Row, Turns, calls_tools, canonical_each, canonical_lines, holds_images


class Measured(NamedTuple):
    """Rows of a block that belong to one split: their canonical lines, and for each its line, hashes and lengths.

    `turns` counts those of prompt and answer, a pair's chosen one; characters are those of that answer's last turn.
    `with_tools` and `with_images` have a byte for each row, 1 or 0. `odd` is what is odd in their texts. `share` is how
    much of the file has been read with them, from 0 to 1.
    """

    file: DataFile
    share: float
    lines: "array[int]"
    canonical: bytes
    rows: "array[int]"
    prompts: "array[int]"
    turns: "array[int]"
    answer_characters: "array[int]"
    with_tools: bytes
    with_images: bytes
    odd: list[Finding]

    def first(self, count: int) -> Self:
        """Return the first so many rows, and what is odd in them."""
        if len(self.lines) <= count:
            return self
        lines = self.lines[:count]
        # Lines within a block ascend, so that the last row's shows what lies behind it.
        last = lines[-1] if lines else 0
        return self._replace(
            lines=lines,
            canonical=b"".join(self.canonical.splitlines(keepends=True)[:count]),
            rows=self.rows[:count],
            prompts=self.prompts[:count],
            turns=self.turns[:count],
            answer_characters=self.answer_characters[:count],
            with_tools=self.with_tools[:count],
            with_images=self.with_images[:count],
            odd=[each for each in self.odd if each.line is not None and each.line <= last],
        )


def measure(block: RowBlock, lines: Callable[[Sequence[Row]], bytes] = canonical_lines) -> Measured:
    """Return what a survey needs of a block's rows; `lines` makes the lines by which they are fingerprinted."""
    # Encoded once: the fingerprint, the hashes, the search for odd texts and the count of bytes share these lines.
    encoded = lines(block.rows)
    separate = encoded.split(b"\n")[:-1]
    prompts, answers = _columns(block.rows)
    odd = [
        Finding("warning", odd.rule, block.file.name, block.lines[place], odd.message)
        for place, odd in odd_rows(block.rows, encoded, separate)
    ]
    # `map` and comprehensions, not a loop: this runs for every row of a million.
    return Measured(
        file=block.file,
        share=block.share,
        lines=array("L", block.lines),
        canonical=encoded,
        rows=_hashes(separate),
        prompts=_hashes(canonical_each(prompts)),
        turns=array("I", list(map(add, map(len, prompts), map(len, answers)))),
        answer_characters=array("I", [len(answer[-1].content or "") if answer else 0 for answer in answers]),
        with_tools=_with_tools(block.rows, encoded, separate),
        with_images=bytes(map(holds_images, separate)) if holds_images(encoded) else bytes(len(separate)),
        odd=odd,
    )


def join(parts: Sequence[Measured]) -> Measured:
    """Return parts of one file that follow each other as one."""
    return parts[0]._replace(
        share=parts[-1].share,
        lines=_joined([part.lines for part in parts]),
        canonical=b"".join([part.canonical for part in parts]),
        rows=_joined([part.rows for part in parts]),
        prompts=_joined([part.prompts for part in parts]),
        turns=_joined([part.turns for part in parts]),
        answer_characters=_joined([part.answer_characters for part in parts]),
        with_tools=b"".join([part.with_tools for part in parts]),
        with_images=b"".join([part.with_images for part in parts]),
        odd=[each for part in parts for each in part.odd],
    )


def _joined(arrays: Sequence["array[int]"]) -> "array[int]":
    return array(arrays[0].typecode, b"".join(map(bytes, arrays)))


def _columns(rows: Sequence[Row]) -> tuple[list[Turns], list[Turns]]:
    """Return prompts and answers of rows, those of pairs the chosen ones."""
    return type(rows[0]).columns(rows) if rows else ([], [])


def _hashes(lines: Sequence[bytes]) -> "array[int]":
    """Return 64 bits of each line, the same in every process, which Python's own hash is not."""
    # Of a list: an array that is made of an iterator grows item by item.
    return array("Q", list(map(xxh3_64_intdigest, lines)))


def _with_tools(rows: Sequence[Row], encoded: bytes, lines: Sequence[bytes]) -> bytes:
    """Return 1 for each row that declares, calls or answers tools, 0 for the others."""
    # Few files have any: what a row declares is looked up, in place of a search through all bytes.
    if not calls_tools(encoded) and all(row.tools is None for row in rows):
        return bytes(len(rows))
    return bytes(row.tools is not None or calls_tools(line) for row, line in zip(rows, lines, strict=True))
