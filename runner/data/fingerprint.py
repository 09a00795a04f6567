"""The sha256 of a split's canonical lines, computed in a thread while reading continues.

Hashing a million rows takes half a second, in which `hashlib` lets other threads run. It is done in large
pieces: on a busy machine each change of threads can cost milliseconds.
"""

import hashlib
from concurrent.futures import Executor, Future

PIECE_BYTES = 16 << 20


class Fingerprint:
    """A sha256 that is fed part by part; the thread is at most a piece behind."""

    def __init__(self, helper: Executor) -> None:
        self._helper = helper
        self._sha256 = hashlib.sha256()
        self._parts: list[bytes] = []
        self._size = 0
        self._running: Future[None] | None = None

    def update(self, part: bytes) -> None:
        """Take a further part."""
        self._parts.append(part)
        self._size += len(part)
        if self._size >= PIECE_BYTES:
            self._hand_over()

    def hexdigest(self) -> str:
        """Return the hash of all parts, in hexadecimal digits."""
        self._hand_over()
        self._wait()
        return self._sha256.hexdigest()

    def _hand_over(self) -> None:
        """Let the thread hash what has gathered, once it is done with what it had before."""
        self._wait()
        # One piece ahead at most: more would gather in memory where the disk reads faster than a core hashes.
        self._running = self._helper.submit(self._sha256.update, b"".join(self._parts))
        self._parts, self._size = [], 0

    def _wait(self) -> None:
        if self._running is not None:
            self._running.result()
