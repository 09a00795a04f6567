"""Heartbeats from a thread: a session without them is over after some minutes, with all that is not saved."""

import threading
from contextlib import suppress

from runner.errors import RunnerError
from runner.remote.engine.service import Lost, Service

EVERY_SECONDS = 10.0
"""As the package `tinker` does it."""
JOIN_SECONDS = 1.0


class Heartbeat:
    """Reports to a service that a session's driver lives, until it is stopped or the session is over."""

    def __init__(self, service: Service, session: str, every: float = EVERY_SECONDS) -> None:
        self.session = session
        self._service, self._every, self._ended = service, every, threading.Event()
        # daemon: a service that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more of them."""
        self._ended.set()
        # So that a connection is not closed below a request; a service that hangs is not waited for.
        self._thread.join(JOIN_SECONDS)

    def _beat(self) -> None:
        while not self._ended.wait(self._every):
            # A heartbeat that fails is no reason to end: the next request says what is wrong.
            with suppress(RunnerError, Lost):
                if not self._service.alive(self.session):
                    return
