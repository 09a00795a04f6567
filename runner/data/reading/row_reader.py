"""From a file to good rows: decoded, brought into our form and checked; bad rows are set aside."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Self

import msgspec

from runner.data import kinds
from runner.data.containers import BYTE_ORDER_MARK, Block, Piece, head, read_pieces
from runner.data.findings import Finding
from runner.data.formats import Format, ToRow, named
from runner.data.quality.unread_keys import NOTHING_MET, Met, Reader
from runner.data.reading.decode_errors import explain
from runner.data.reading.detect import detect
from runner.data.reading.files import DataFile
from runner.data.reading.unknown_keys import Unread
from runner.data.rows import Row
from runner.errors import DataError


class RowBlock(NamedTuple):
    """Good rows of a part of a file, for each the line it begins on, and what was found bad or odd there.

    `share` is how much of the file has been read with them, from 0 to 1.
    """

    file: DataFile
    lines: Sequence[int]
    rows: list[Row]
    findings: list[Finding]
    share: float = 0.0

    def first(self, count: int) -> Self:
        """Return the first so many rows; what was found in others, too, stays."""
        if len(self.rows) <= count:
            return self
        return self._replace(lines=self.lines[:count], rows=self.rows[:count])


class Steps(NamedTuple):
    """What makes lines rows; `reader` and a row's own check raise `ValueError` for a bad one.

    `parts` is the kind wanted where each row read holds several of it.
    """

    format: Format
    reader: Reader
    parts: type[Row] | None = None


class Opened(NamedTuple):
    """A file whose format is known: its pieces, and what is to be said of the file as a whole."""

    file: DataFile
    format: Format
    pieces: Iterator[Piece]
    findings: list[Finding]


def open_file(file: DataFile, format_name: str, kind: str) -> Opened:
    """Return a file ready to be read. Raises `DataError` if it cannot be, or if its format is not known."""
    findings = []
    if head(file).startswith(BYTE_ORDER_MARK):
        message = "the file begins with U+FEFF, which other programs trip over; save it without byte order mark"
        findings.append(Finding("warning", "byte-order-mark", file.name, 1, message))
    # The first block decides the format; all others are read with it.
    pieces = read_pieces(file)
    first = next(pieces, Block([], []))
    name = kinds.load(kind).format if format_name == "auto" else format_name
    format = named(name) if name else detect(file, first.read(), kind)
    return Opened(file, format, chain([first], pieces), findings)


def read_file(file: DataFile, format_name: str, kind: str) -> Iterator[RowBlock]:
    """Yield the good rows of a file in the form of the kind wanted.

    Raises `DataError` if the file cannot be read, or if its format is not known or does not hold such rows.
    """
    opened = open_file(file, format_name, kind)
    yield RowBlock(file, [], [], opened.findings)
    steps = steps_of(file, opened.format, kind)
    for piece in opened.pieces:
        yield good_rows(file, piece.read(), steps)


def steps_of(file: DataFile, format: Format, kind: str, met: Met = NOTHING_MET) -> Steps:
    """Return the steps from the lines of a file to rows of the kind wanted, after the keys met in it before."""
    wanted = kinds.load(kind)
    split = format.kind in wanted.split_of
    own = format.kind == kind or split
    to_row = format.to_row if own else _converted(file, format, wanted)
    return Steps(format, Reader(format, to_row, met, file.folder), wanted if split else None)


def good_rows(file: DataFile, block: Block, steps: Steps) -> RowBlock:
    """Take a block through the steps whole, which is quick; if that fails, row by row."""
    try:
        rows, unread = steps.reader.read(block.lines)
        found = _checked(file, block.numbers, rows, unread, steps)
    except (ValueError, RecursionError):
        # One bad row in a block of a megabyte: the block is read again row by row, to know which.
        found = _joined(
            [_good_row(file, number, line, steps) for number, line in zip(block.numbers, block.lines, strict=True)]
        )
    found = found._replace(share=block.share)
    return _split(found, steps.parts) if steps.parts else found


def _checked(
    file: DataFile, numbers: Sequence[int], rows: list[Row], unread: Sequence[Unread], steps: Steps
) -> RowBlock:
    ignored = [
        Finding("warning", odd.rule, file.name, numbers[each.lines[0]], odd.message, len(each.lines))
        for each, odd in steps.reader.warnings(unread)
    ]
    findings = [
        Finding("warning", odd.rule, file.name, number, odd.message)
        for number, row in zip(numbers, rows, strict=True)
        if not row.is_plain()
        for odd in row.check()
    ]
    return RowBlock(file, numbers, rows, ignored + findings)


def _good_row(file: DataFile, number: int, line: bytes, steps: Steps) -> RowBlock:
    """Take one line through the steps; a bad row becomes a finding, a blank line nothing."""
    unread: list[Unread] = []
    try:
        try:
            [row], unread = steps.reader.read([line])
        except msgspec.ValidationError:
            row, unread = steps.reader.read_thoroughly(line)
        return _checked(file, [number], [row], unread, steps)
    except (ValueError, RecursionError) as error:
        bad = explain(error, line, steps.format, unread)
        findings = [Finding("error", bad.rule, file.name, number, str(bad))] if line.strip() else []
        return RowBlock(file, [], [], findings)


def _joined(blocks: list[RowBlock]) -> RowBlock:
    lines, rows, findings = (list(chain.from_iterable(each)) for each in list(zip(*blocks, strict=True))[1:4])
    return RowBlock(blocks[0].file, lines, rows, findings)


def _split(block: RowBlock, kind: type[Row]) -> RowBlock:
    """Return a block with the several rows of the kind wanted that each of its rows holds, all from the same line."""
    # Split after they are checked: two equal answers are a fault of the pair.
    parts = [(line, part) for line, row in zip(block.lines, block.rows, strict=True) for part in kind.parts(row)]
    return block._replace(lines=[line for line, _ in parts], rows=[row for _, row in parts])


def _converted(file: DataFile, format: Format, kind: type[Row]) -> ToRow:
    """Return what reads a format of another kind as rows of the kind wanted."""
    found = kinds.load(format.kind)

    def to_row(raw: msgspec.Struct) -> Row:
        row = kind.of(format.to_row(raw))
        if row is None:
            raise DataError(
                f"{file.name}: holds {found.label} (format {format.name}), but the method learns from {kind.label}; "
                f"give it such data, or choose a method that learns from {found.label}."
            )
        return row

    return to_row
