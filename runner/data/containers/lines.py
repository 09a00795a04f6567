"""JSON Lines: a row is a line, and a line ends with LF or CR LF and nothing else.

U+2028, U+2029 and U+0085 end lines for `str.splitlines`, but not in JSON Lines: they may be in a text.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from runner.data.containers import (
    BLOCK_BYTES,
    BYTES_WITH_IMAGES,
    Block,
    Piece,
    Span,
    head,
    is_packed,
    lines_of,
    names_images,
    num_lines,
    open_text,
    share_read,
)
from runner.data.quoting import shown
from runner.data.reading.files import DataFile
from runner.errors import DataError

# Names without quotes or brackets, with one kind of separator: no row of JSON looks like that.
_HEADER = re.compile(r"\ufeff?[\w \"'.-]{1,60}(?:(?P<separator>[,;\t])[\w \"'.-]{1,60})+", re.ASCII)


def read(file: DataFile) -> Iterator[Piece]:
    """Yield the lines of a file; blank ones are among them, so that the numbers are right.

    A file that is not packed gives spans, as it can be read from anywhere. Raises `DataError` if it begins as a table
    does, or with an object that goes over several lines.
    """
    size = BYTES_WITH_IMAGES if names_images(head(file)) else BLOCK_BYTES
    with open_text(file.path) as stream:
        start, first = 0, 1
        while text := _whole_lines(stream, size):
            numbers = range(first, first + num_lines(text))
            share = share_read(stream, file.path)
            if start == 0:
                _refuse_other_layouts(file, lines_of(text, start))
            if is_packed(stream):
                yield Block(numbers, lines_of(text, start), share)
            else:
                yield Span(file, start, len(text), numbers, share)
            start, first = start + len(text), numbers.stop


def _whole_lines(stream: BinaryIO, size: int) -> bytes:
    """Return the next lines, a little more than a block together; a longer row is one line all the same."""
    text = stream.read(size + 1)
    return text if text.endswith(b"\n") else text + stream.readline()


def _refuse_other_layouts(file: DataFile, lines: Sequence[bytes]) -> None:
    number = next((number for number, line in enumerate(lines) if line.strip()), 0)
    # Only to be looked at: what is not UTF-8 is reported where the row is decoded.
    text = b"".join(lines[number:]).decode("utf-8", "replace").lstrip()
    first = text.partition("\n")[0].strip()
    if _HEADER.fullmatch(first) and not text.removeprefix(first).lstrip().startswith(("{", "[")):
        raise DataError(
            f"{file.name}: looks like a table with the header '{shown(first, 100)}'; the name of a table ends with "
            ".csv or .tsv; rename it."
        )
    if first.startswith("{") and _goes_over_lines(text):
        raise DataError(
            f"{file.name}:{number + 1}: the object that begins here goes over several lines, but in JSON Lines each "
            "row is one line; write it so (`jq -c . FILE` does), or put the rows into one JSON array."
        )


def _goes_over_lines(text: str) -> bool:
    """Say whether a text begins with an object that does not end on its first line."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return "\n" in text[:end]
