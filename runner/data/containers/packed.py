"""Packed files as streams of what they hold: gzip and zstd, known by their first bytes."""

import gzip
import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from runner.errors import DataError

if TYPE_CHECKING:
    from zstandard import ZstdDecompressionObj

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""How such files begin: RFC 1952, RFC 8878."""
_CHUNK = 1 << 17


def open_packed(path: Path, start: bytes) -> BinaryIO | None:
    """Open a file that begins so for reading what it holds; None if it is not packed.

    Raises `DataError` where reading zstd needs a package that is not here.
    """
    if start.startswith(GZIP):
        return gzip.open(path)  # type: ignore[return-value]
    if start.startswith(ZSTD):
        return _Unpacked(path.open("rb"))
    return None


class BadZstd(ValueError):
    """A zstd file is cut off or damaged."""


class _Unpacked(io.BufferedReader):
    """What a zstd file holds; `fileobj` is the file, as with gzip."""

    def __init__(self, fileobj: BinaryIO) -> None:
        super().__init__(_Frames(fileobj), _CHUNK)
        self.fileobj = fileobj


class _Frames(io.RawIOBase):
    """The frames of a zstd file, one after the other.

    The package's own reader takes a file that was cut off for one that ends there.
    """

    def __init__(self, fileobj: BinaryIO) -> None:
        self._file, self._left, self._ended = fileobj, b"", True
        self._packed = b""
        self._frame: ZstdDecompressionObj = self._new()

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        """Fill a buffer with what follows. Raises `BadZstd` where a frame is damaged or has no end."""
        while not self._left:
            packed = self._packed or self._file.read(_CHUNK)
            if not packed:
                if not self._ended:
                    raise BadZstd
                return 0
            # Files made by several threads, and by `cat`, have several frames.
            if self._ended:
                self._frame, self._ended = self._new(), False
            self._left, self._packed = self._decompressed(packed), b""
            if self._frame.eof:
                self._ended, self._packed = True, self._frame.unused_data
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        """Close the file, too."""
        self._file.close()
        super().close()

    def _decompressed(self, packed: bytes) -> bytes:
        from zstandard import ZstdError

        try:
            return self._frame.decompress(packed)
        except ZstdError as error:
            raise BadZstd from error

    def _new(self) -> "ZstdDecompressionObj":
        try:
            from zstandard import ZstdDecompressor
        except ImportError:
            raise DataError(
                f"{self._file.name}: the file is zstd-compressed, which needs zstandard; "
                "pip install 'runner[sources]', or compress it with gzip."
            ) from None
        return ZstdDecompressor().decompressobj()
