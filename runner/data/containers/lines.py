"""JSON Lines: a row is a line, and a line ends with LF or CR LF and nothing else.

U+2028, U+2029 and U+0085 end lines for `str.splitlines`, but not in JSON Lines: they may stand in a text.
"""

from collections.abc import Iterator

from runner.data.containers import BLOCK_BYTES, BYTE_ORDER_MARK, Block, open_text, share_read
from runner.data.files import DataFile


def read(file: DataFile) -> Iterator[Block]:
    """Yield the lines of a file; blank ones are among them, so that the numbers are right."""
    with open_text(file.path) as stream:
        first = 1
        while lines := stream.readlines(BLOCK_BYTES):
            if first == 1:
                lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
            yield Block(range(first, first + len(lines)), lines, share_read(stream, file.path))
            first += len(lines)
