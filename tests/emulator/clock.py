"""The service's clock: it can run fast, be off, and be moved forward."""

import time


class Clock:
    """Seconds since 1970 as the service sees them: real time since the start × speed, plus an offset."""

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
