"""One JSON array of rows, however it is laid out, cut into rows with no more than a block in memory.

A row is found by counting brackets outside strings. An unclosed string ends with its line: where brackets
are on lines of their own, a forgotten quote spoils one row and not the rest of the file.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice

from runner.data.containers import (
    BLOCK_BYTES,
    BYTE_ORDER_MARK,
    ROWS_WITH_IMAGES,
    Block,
    head,
    names_images,
    open_text,
    share_read,
)
from runner.data.reading.files import DataFile
from runner.errors import DataError

ROWS_A_BLOCK = 1000
NOT_CLOSED = "the row that begins here is not closed"
# Up to a bracket outside strings: other bytes, or a string, closed by its quote or its line's end, in
# which a backslash takes the next byte with it. Possessive (++, *+): what is matched is never tried
# again, so that the time is linear in any file.
_TO_NEXT_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\\n]++|\\.)*+["\n])*+[{}\[\]]', re.DOTALL)


class BadArray(ValueError):
    """The array has no end, or something follows it; `line` says where."""

    def __init__(self, line: int, found: str) -> None:
        super().__init__(found)
        self.line = line


def read(file: DataFile) -> Iterator[Block]:
    """Yield the items of the file's array.

    Raises `DataError` if the array is not closed, or is not all there is in the file.
    """
    with open_text(file.path) as stream:
        start = head(file)
        stream.read(len(BYTE_ORDER_MARK) if start.startswith(BYTE_ORDER_MARK) else 0)
        items, size = split_array(stream.read), ROWS_WITH_IMAGES if names_images(start) else ROWS_A_BLOCK
        try:
            while batch := list(islice(items, size)):
                share = share_read(stream, file.path)
                yield Block([line for line, _ in batch], [item for _, item in batch], share)
        except BadArray as bad:
            raise DataError(
                f"{file.name}:{bad.line}: {bad}; a .json file holds one array of rows: "
                "look for a missing comma, quote or bracket, or fetch it again if it was cut off."
            ) from None


def split_array(read: Callable[[int], bytes], size: int = BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
    """Yield each item of a JSON array with the number of the line it begins on.

    `read` returns up to so many bytes, none at the end. What is wrongly between two items is given with
    the second one, which then is not JSON. Raises `BadArray`.
    """
    text, line = read(size), 1
    while b"[" not in text:
        text += read(size)
    at, separator = text.index(b"[") + 1, b""
    line += text.count(b"\n", 0, at)
    while True:
        item = _next_item(text, at)
        if item is None:
            # At least as much again as is held: reading a long row block by block would scan it from its start each
            # time, in quadratic time.
            more = read(max(size, len(text) - at))
            if not more:
                raise _not_closed(text[at:].rstrip(), line)
            text, at = text[at:] + more, 0
            continue
        start, end = item
        between = text[at:start].strip()
        line += text.count(b"\n", at, start)
        if text[start:end] == b"]":
            break
        # Brackets are counted, not matched: an object that ends with `]` has taken in what follows it.
        if text[start] == ord("{") and text[end - 1] == ord("]"):
            raise BadArray(line, NOT_CLOSED)
        if separator and not between:
            raise BadArray(line, "there is no comma before the row that begins here")
        # Anything else than the comma goes with the row, which then is not JSON and is reported with its line.
        yield line, text[start:end] if between == separator else between + text[start:end]
        line += text.count(b"\n", start, end)
        at, separator = end, b","
    if between:
        yield line, between
    _nothing_follows(text[end:], read, size, line)


def _next_item(text: bytes, at: int) -> tuple[int, int] | None:
    """Return where the next object or list begins and ends, or the array's own `]`; None if text is short."""
    depth, start, end = 0, -1, at
    while match := _TO_NEXT_BRACKET.match(text, end):
        end = match.end()
        start = end - 1 if start < 0 else start
        depth += 1 if text[end - 1] in b"[{" else -1
        if depth <= 0:
            return start, end
    return None


def _nothing_follows(text: bytes, read: Callable[[int], bytes], size: int, line: int) -> None:
    # To the end of the file: a second array, or lines of JSON, behind the first would be rows that are
    # silently missing.
    while text := text or read(size):
        if text.strip():
            raise BadArray(line + text[: len(text) - len(text.lstrip())].count(b"\n"), "the array has ended before")
        line += text.count(b"\n")
        text = b""


def _not_closed(text: bytes, line: int) -> BadArray:
    """Return what is wrong with an array whose last item, or itself, has no end."""
    if begun := _TO_NEXT_BRACKET.match(text):
        return BadArray(line + text.count(b"\n", 0, begun.end()), NOT_CLOSED)
    return BadArray(line + text.count(b"\n"), "the array is not closed by `]`")
