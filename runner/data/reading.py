"""From a file to good rows: decoded, brought into our form and checked; bad rows are set aside."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from runner.data.checks import CHECKS
from runner.data.containers import BYTE_ORDER_MARK, Block, head, read_blocks
from runner.data.detect import detect
from runner.data.explain import explain
from runner.data.files import DataFile
from runner.data.findings import Finding
from runner.data.formats import Format, named
from runner.data.rows import Kind, Oddity, Pair, Row
from runner.errors import DataError


class RowBlock(NamedTuple):
    """Good rows of a part of a file, for each the line it begins on, and what was found bad or odd there."""

    file: DataFile
    lines: Sequence[int]
    rows: list[Row]
    findings: list[Finding]


class Steps(NamedTuple):
    """What makes a line a row; each step raises `ValueError` for a bad one, the last returns what is odd."""

    format: Format
    decode: Callable[[bytes], Any]
    to_row: Callable[[Any], Row]
    check: Callable[[Row], tuple[Oddity, ...]]


def read_file(file: DataFile, format_name: str, kind: Kind) -> Iterator[RowBlock]:
    """Yield the good rows of a file in the form of the kind wanted.

    Raises `DataError` if the file cannot be read, or if its format is not known or does not hold such rows.
    """
    if head(file).startswith(BYTE_ORDER_MARK):
        message = (
            "the file begins with U+FEFF, which other programs trip over; save it without byte order mark"
        )
        yield RowBlock(file, [], [], [Finding("warning", "byte-order-mark", file.name, 1, message)])
    blocks = read_blocks(file)
    first = next(blocks, Block([], []))
    format = detect(file, first) if format_name == "auto" else named(format_name)
    if format.kind == "conversation" and kind == "preference":
        raise DataError(
            f"{file.name}: holds conversations (format {format.name}), but the method learns from pairs of a "
            "chosen and a rejected answer; give it such data, or learn from conversations with method=sft."
        )
    to_row = format.to_row if format.kind == kind else _chosen_only(format.to_row)
    steps = Steps(format, msgspec.json.Decoder(format.raw).decode, to_row, CHECKS[kind])
    for block in chain([first], blocks):
        yield good_rows(file, block, steps)


def good_rows(file: DataFile, block: Block, steps: Steps) -> RowBlock:
    """Take a block through the steps whole, which is quick; if that fails, row by row."""
    try:
        rows = list(map(steps.to_row, map(steps.decode, block.lines)))
        oddities = list(map(steps.check, rows))
    except (ValueError, RecursionError) as error:
        if len(block.lines) == 1:
            return RowBlock(file, [], [], _bad_row(file, block, error, steps.format))
        singles = [Block([number], [line]) for number, line in zip(block.numbers, block.lines, strict=True)]
        return _joined([good_rows(file, single, steps) for single in singles])
    findings = [
        Finding("warning", odd.rule, file.name, number, odd.message)
        for number, found in zip(block.numbers, oddities, strict=True)
        for odd in found
    ]
    return RowBlock(file, block.numbers, rows, findings)


def _bad_row(
    file: DataFile, block: Block, error: ValueError | RecursionError, format: Format
) -> list[Finding]:
    """Return why a row is bad; a blank line is no row."""
    [number], [line] = block
    if not line.strip():
        return []
    bad = explain(error, line, format)
    return [Finding("error", bad.rule, file.name, number, str(bad))]


def _joined(blocks: list[RowBlock]) -> RowBlock:
    files, lines, rows, findings = zip(*blocks, strict=True)
    return RowBlock(files[0], *(list(chain.from_iterable(each)) for each in (lines, rows, findings)))


def _chosen_only(to_row: Callable[[Any], Row]) -> Callable[[Any], Row]:
    """Return what reads a format of pairs as conversations."""

    def to_conversation(raw: Any) -> Row:
        row = to_row(raw)
        return row.as_conversation() if isinstance(row, Pair) else row

    return to_conversation
