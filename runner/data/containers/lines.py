"""JSON Lines: a row is a line, and a line ends with LF or CR LF and nothing else.

U+2028, U+2029 and U+0085 end lines for `str.splitlines`, but not in JSON Lines: they may be in a text.
"""

import json
import re
from collections.abc import Iterator, Sequence

from runner.data.containers import BLOCK_BYTES, BYTE_ORDER_MARK, Block, open_text, share_read
from runner.data.quoting import shown
from runner.data.reading.files import DataFile
from runner.errors import DataError

# Names without quotes or brackets, with one kind of separator: no row of JSON looks like that.
_HEADER = re.compile(r"\ufeff?[\w \"'.-]{1,60}(?:(?P<separator>[,;\t])[\w \"'.-]{1,60})+", re.ASCII)


def read(file: DataFile) -> Iterator[Block]:
    """Yield the lines of a file; blank ones are among them, so that the numbers are right.

    Raises `DataError` if the file begins as a table does, or with an object that goes over several lines.
    """
    with open_text(file.path) as stream:
        first = 1
        # Of bytes, so that only LF ends a line; a row longer than a block is one line all the same.
        while lines := stream.readlines(BLOCK_BYTES):
            if first == 1:
                lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
                _refuse_other_layouts(file, lines)
            yield Block(range(first, first + len(lines)), lines, share_read(stream, file.path))
            first += len(lines)


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
