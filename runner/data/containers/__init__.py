"""From files to blocks of raw rows: each row one line of JSON, with its line number in the file.

What a file is shows in its first bytes, or for CSV in its name. Whatever it is, memory stays constant: a
block holds about a megabyte. Here a row is only found, not judged: that it is JSON, UTF-8 and of a known
format is seen when it is decoded.
"""

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, NamedTuple

from runner.data.containers.packed import BadZstd, open_packed
from runner.data.reading.files import DataFile
from runner.data.reading.image_values import COLUMNS
from runner.errors import DataError

# A megabyte: large enough for decoding to be what takes the time, small enough for memory not to depend
# on the file.
BLOCK_BYTES = 1 << 20
ROWS_WITH_IMAGES, BYTES_WITH_IMAGES = 50, 1 << 14
"""How large a block is where rows may name files of images, whose contents are read with it; about as many rows."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# In this order: UTF-32's byte order mark begins with UTF-16's. Texts of two or four bytes per character are
# known by where their zeros are, as data often comes without a mark.
_FOREIGN = {
    rb"version https://git-lfs": "a Git LFS pointer, not the data itself; fetch that with `git lfs pull`",
    rb"PK": "a ZIP or Excel file; save its table as CSV or JSON Lines",
    rb"\xff\xfe\0\0|\0\0\xfe\xff|[^\0]\0\0\0|\0\0\0[^\0]": "UTF-32 text; save it as UTF-8",
    rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]": "UTF-16 text; save it as UTF-8",
    rb"BZh": "bzip2-compressed; unpack it, or compress it with gzip",
    rb"\xfd7zXZ": "xz-compressed; unpack it, or compress it with gzip",
    rb"ARROW1": "an Arrow file; save its table as Parquet",
    rb"(?i:\s*<(?:!doctype|html))": "a web page; perhaps a link led to a page about the data: fetch the data itself",
}
"""How files begin that are not read, and what they are."""


class Block(NamedTuple):
    """Some rows of a file: JSON, one per line, and the number of the line where each begins in the file.

    `share` is how much of the file has been read with them, from 0 to 1.
    """

    numbers: Sequence[int]
    lines: list[bytes]
    share: float = 1.0

    def read(self) -> "Block":
        """Return the block itself, as a span returns one."""
        return self


class NoRow(bytes):
    """In place of a row's line: why what is there is no row, as a sentence in UTF-8, which JSON never is."""


class Span(NamedTuple):
    """Lines that are left where they are in a file of JSON Lines: `size` bytes from `start` on, with their numbers.

    Its few bytes go to another process in place of a megabyte, which is read there.
    """

    file: DataFile
    start: int
    size: int
    numbers: range
    share: float

    def read(self) -> Block:
        """Return the lines. Raises `DataError` if they cannot be read any more."""
        with _readable(self.file), self.file.path.open("rb") as stream:
            stream.seek(self.start)
            text = stream.read(self.size)
        lines = lines_of(text, self.start)
        if len(lines) != len(self.numbers):
            raise DataError(f"{self.file.name}: the file was changed while it was read; give the command again.")
        return Block(self.numbers, lines, self.share)


Piece = Block | Span
"""Some rows of a file, here or to be read; `read` returns them."""


def lines_of(text: bytes, start: int) -> list[bytes]:
    """Return the lines of a text, each with the LF that ends it; a file's mark, at its `start` 0, is left out."""
    # Not `splitlines`, for which CR alone ends a line, too.
    return io.BytesIO(text if start else text.removeprefix(BYTE_ORDER_MARK)).readlines()


def num_lines(text: bytes) -> int:
    """Return how many lines a text has, of which the last one need not end with LF."""
    import numpy as np

    # A fifth of the time of `bytes.count`, which finds one after the other.
    ends = np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    return int(ends) + (not text.endswith(b"\n"))


def open_text(path: Path) -> BinaryIO:
    """Open a file for reading bytes, unpacked if it is gzip or zstd."""
    with path.open("rb") as stream:
        # By its first bytes: a name is often wrong, as downloads lose or gain `.gz`.
        start = stream.read(4)
    return open_packed(path, start) or path.open("rb")


def is_packed(stream: BinaryIO) -> bool:
    """Say whether what `open_text` opened is unpacked as it is read, and so cannot be read from anywhere."""
    return hasattr(stream, "fileobj")


def share_read(stream: BinaryIO, path: Path) -> float:
    """Return how much of a file that `open_text` opened has been read, from 0 to 1."""
    # Of the packed bytes: how many there are unpacked is known at the end only.
    packed = getattr(stream, "fileobj", stream)
    return packed.tell() / max(1, path.stat().st_size)


def head(file: DataFile) -> bytes:
    """Return the first bytes of a file's (unpacked) content.

    Raises `DataError` if it is empty, cannot be opened or is of a kind that is not read here.
    """
    with _readable(file), open_text(file.path) as stream:
        start = stream.read(4096)
    # A few thousand spaces or line breaks and then rows: nobody writes that.
    if not start.removeprefix(BYTE_ORDER_MARK).strip():
        raise DataError(f"{file.name}: the file is empty; a row is needed, in JSON Lines, JSON, CSV or Parquet.")
    for beginning, what in _FOREIGN.items():
        if re.match(beginning, start, re.DOTALL):
            raise DataError(f"{file.name}: the file is {what}.")
    return start


def names_images(start: bytes) -> bool:
    """Say whether the first bytes of a file have a key whose value may be files of images."""
    return any(f'"{key}"'.encode() in start for key in COLUMNS)


def container_of(file: DataFile, start: bytes) -> str:
    """Return which module of this package reads the file."""
    suffixes = file.path.suffixes
    if start.startswith(b"PAR1"):  # https://parquet.apache.org/docs/file-format/
        return "parquet"
    # Any text can be a table's first line, so that here the name decides.
    if ".csv" in suffixes or ".tsv" in suffixes:
        return "table"
    return "array" if start.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[") else "lines"


def read_blocks(file: DataFile) -> Iterator[Block]:
    """Yield the rows of a file, a block at a time; raises as `read_pieces` does."""
    return (piece.read() for piece in read_pieces(file))


def read_pieces(file: DataFile) -> Iterator[Piece]:
    """Yield the rows of a file, a piece of about a megabyte at a time.

    Raises `DataError` if the file is empty, cut off or not a kind of file that is read here.
    """
    container = import_module(f"{__name__}.{container_of(file, head(file))}")
    read: Callable[[DataFile], Iterator[Piece]] = container.read
    with _readable(file):
        yield from read(file)


@contextmanager
def _readable(file: DataFile) -> Iterator[None]:
    """Raise what the system says of a file as `DataError`."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, BadZstd) as error:
        packer = "zstd" if isinstance(error, BadZstd) else "gzip"
        raise DataError(
            f"{file.name}: the {packer} file is cut off or damaged; a whole one is needed, fetch it again."
        ) from None
    except OSError as error:
        raise DataError(f"{file.name}: {error.strerror}; a file that can be read is needed; check it.") from None
