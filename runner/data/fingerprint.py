"""The sha256 of a split's canonical lines, computed in a thread beside the reading.

Hashing a million rows takes half a second, for which `hashlib` lets other threads run.
"""

import hashlib
from concurrent.futures import Executor, Future


class Fingerprint:
    """A sha256 that is fed piece by piece, at most one piece behind the caller."""

    def __init__(self, helper: Executor) -> None:
        self._helper = helper
        self._sha256 = hashlib.sha256()
        self._running: Future[None] | None = None

    def update(self, piece: bytes) -> None:
        """Hash a further piece once the one before is done."""
        self._wait()
        self._running = self._helper.submit(self._sha256.update, piece)

    def hexdigest(self) -> str:
        """Return the hash of all pieces, in hexadecimal digits."""
        self._wait()
        return self._sha256.hexdigest()

    def _wait(self) -> None:
        if self._running is not None:
            self._running.result()
