"""The sessions of a service, as `python -m runner.jobs` lists and ends them."""

from collections.abc import Sequence

from runner.backends import RemoteJob
from runner.errors import RequestError
from runner.remote.engine.service import Service


class Sessions:
    """All sessions that a service shows to us, whoever opened them."""

    def __init__(self, service: Service) -> None:
        self.service, self.endpoint = service, service.endpoint

    def list(self) -> Sequence[RemoteJob]:
        """Return all sessions, newest first."""
        found = self.service.sessions()
        self.service.disconnect()
        return found

    def change(self, verb: str, job: str) -> str:
        """End a session; there is no other change. What it has not saved is gone."""
        # A session runs only as long as its driver asks: there is nothing to pause.
        if verb != "cancel":
            raise RequestError(f"{verb}: got {job}, a session, which can only be ended; use cancel.")
        self.service.close(job, "interrupted")
        self.service.disconnect()
        return "ended"
