"""CSV: a header with the names of the keys, and a row of texts below it for each row.

The separator is whichever of comma, semicolon and tab the header has most of. Cells are texts, so the
formats with lists of messages have no CSV form.
"""

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice

import msgspec

from runner.data.containers import Block, NoRow, open_text, share_read
from runner.data.quoting import shown
from runner.data.reading.files import DataFile
from runner.errors import DataError

ROWS_A_BLOCK = 1000


def read(file: DataFile) -> Iterator[Block]:
    """Yield the rows below the header; a row of blank cells only is left out.

    Raises `DataError` for bytes that are not UTF-8 and for quotes that do not close.
    """
    # The module refuses cells over 128 KiB by default; long conversations are longer. It is a setting of the
    # whole process.
    csv.field_size_limit(sys.maxsize)
    with open_text(file.path) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
        rows = _numbered_rows(file, text)
        try:
            while batch := list(islice(rows, ROWS_A_BLOCK)):
                share = share_read(stream, file.path)
                yield Block([line for line, _ in batch], [row for _, row in batch], share)
        except UnicodeDecodeError as error:
            wrong = error.object[error.start]
            raise DataError(f"{file.name}: byte 0x{wrong:02x} is not UTF-8; save the file as UTF-8.") from None


def _numbered_rows(file: DataFile, text: io.TextIOWrapper) -> Iterator[tuple[int, bytes]]:
    """Yield each row as a JSON object or a `NoRow`, with the line it begins on (a quoted cell may hold line breaks)."""
    begins = 1
    # Blank lines above the header, as spreadsheets leave them.
    while not (header := text.readline()).strip():
        if not header:
            raise DataError(f"{file.name}: the file is blank; a header with the names of the keys is needed.")
        begins += 1
    separator, before = max(",;\t", key=header.count), begins
    # strict: without it a quote that does not close takes in the rest of the file, silently.
    rows = csv.reader(chain([header], text), delimiter=separator, strict=True)
    try:
        names = next(rows)
        if twice := [name for name, times in Counter(names).items() if times > 1 and name]:
            raise DataError(
                f"{file.name}:{begins}: the header has the name '{shown(twice[0])}' more than once; each column needs "
                "a name of its own; rename one of them."
            )
        header_line, begins = begins, before + rows.line_num
        for cells in rows:
            # Spreadsheets write rows of separators for lines that were once filled.
            if any(cells):
                yield begins, _line(names, cells, header_line, separator)
            begins = before + rows.line_num
    except csv.Error as error:
        raise DataError(
            f"{file.name}:{begins}: the row that begins here is not CSV ({error}); a cell with quotes or line "
            "breaks is quoted whole, its quotes doubled; repair it."
        ) from None


def _line(names: list[str], cells: list[str], header_line: int, separator: str) -> bytes:
    """Return the row by name, or why it has no names: it has more or fewer cells than the header."""
    if len(names) == len(cells):
        return msgspec.json.encode(dict(zip(names, cells, strict=True)))
    mark = {"\t": "a tab", ",": "a comma", ";": "a semicolon"}[separator]
    # Unquoted texts are the commonest reason: a separator in one makes too many cells, a line break too few.
    return NoRow(
        f"the row has {len(cells):,} cell{'' if len(cells) == 1 else 's'}, but the header on line {header_line} has "
        f"{len(names):,} ({shown(', '.join(names), 200)}); a cell for each column is needed; add what is missing, or "
        f"quote the cell that holds {mark} or a line break".encode()
    )
