"""From a file to good rows: decoded, brought into our form and checked; bad rows are set aside."""

from collections.abc import Callable, Iterator
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
from runner.data.rows import BadRow, Kind, Oddity, Pair, Row
from runner.errors import DataError

Parse = Callable[[bytes], tuple[Row, tuple[Oddity, ...]]]


class RowBlock(NamedTuple):
    """Good rows of a part of a file, for each the line it begins on, and what was found bad or odd there."""

    file: DataFile
    lines: list[int]
    rows: list[Row]
    findings: list[Finding]


def read_file(file: DataFile, format_name: str, kind: Kind) -> Iterator[RowBlock]:
    """Yield the good rows of a file in the form of the kind wanted.

    Raises `DataError` if the file cannot be read, or if its format is not known or does not hold such rows.
    """
    if head(file).startswith(BYTE_ORDER_MARK):
        message = (
            "the file begins with U+FEFF, at which other programs stumble; save it without byte order mark"
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
    parse = _parser(format, kind)
    for block in chain([first], blocks):
        yield _good_rows(file, block, parse)


def _parser(format: Format, kind: Kind) -> Parse:
    """Return what makes a line a row, with what is odd about it, or raises `BadRow`."""
    decode, check = msgspec.json.Decoder(format.raw).decode, CHECKS[kind]
    to_row = _chosen_only(format) if format.kind != kind else format.to_row

    def parse(line: bytes) -> tuple[Row, tuple[Oddity, ...]]:
        try:
            row = to_row(decode(line))
            return row, check(row)
        except ValueError as error:
            raise explain(error, line, format) from None

    return parse


def _chosen_only(format: Format) -> Callable[[Any], Row]:
    """Return what reads a format of pairs as conversations."""

    def to_row(raw: Any) -> Row:
        row = format.to_row(raw)
        return row.as_conversation() if isinstance(row, Pair) else row

    return to_row


def _good_rows(file: DataFile, block: Block, parse: Parse) -> RowBlock:
    good = RowBlock(file, [], [], [])
    for number, line in zip(block.numbers, block.lines, strict=True):
        try:
            row, oddities = parse(line)
        except BadRow as bad:
            if line.strip():
                good.findings.append(Finding("error", bad.rule, file.name, number, str(bad)))
            continue
        for odd in oddities:
            good.findings.append(Finding("warning", odd.rule, file.name, number, odd.message))
        good.lines.append(number)
        good.rows.append(row)
    return good
