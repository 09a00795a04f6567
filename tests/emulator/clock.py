"""The service's clock: it can run fast, be off, and be moved forward."""

import time


class Clock:
    """The service's time: real time since the start × speed (0: only `advance` moves it), plus an offset."""

    def __init__(self, speed: float, offset: float) -> None:
        self._started = time.time()
        self._speed = speed
        self._ahead = offset

    def now(self) -> float:
        """Return the service's time."""
        return self._started + (time.time() - self._started) * self._speed + self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._ahead += seconds
