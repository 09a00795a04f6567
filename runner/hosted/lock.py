"""One process of this machine at a time creates a thing: a lock by what it is, not by the folder of the run.

Two runs of one plan, in two folders, would both look, both find nothing and both create. The system lets go of
the lock when its process dies. Between two machines there is no lock: see `jobs.winner`.
"""

from collections.abc import Generator
from contextlib import suppress

from runner import cache
from runner.record.events import Event, Wait

WAIT_SECONDS = 0.5


class Claim:
    """A lock on one thing, to be held with `yield from claim.take()` and let go with `claim.drop()`."""

    def __init__(self, what: str) -> None:
        self._lock = cache.lock(cache.user_folder() / "claims", what, timeout=0)

    def take(self) -> Generator[Event, None, None]:
        """Wait until no other process holds it."""
        from filelock import Timeout

        while not self._lock.is_locked:
            # timeout=0: never blocking, as a thread that waits in the system hears no signal and serves no other job.
            with suppress(Timeout):
                self._lock.acquire()
                return
            yield Wait(WAIT_SECONDS)

    def drop(self) -> None:
        """Let the next one have it."""
        self._lock.release()
