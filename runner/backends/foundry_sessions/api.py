"""The API of Foundry's fine-tuning sessions by HTTP: requests by their route, and results, which are asked for."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from runner.backends.foundry_sessions.wire import Envelope
from runner.errors import RequestError, RunnerError, ServiceError
from runner.remote.engine.http import Http
from runner.remote.engine.service import ResultGone, SessionGone

if TYPE_CHECKING:
    from httpx2 import Response

ROOT = "/fine_tuning/sessions"
HEADERS = {"Content-Type": "application/json", "Foundry-Features": "FineTuningSessions=V1Preview"}
# Codes of the package's _exceptions.py, 1.0.0b1.
APPLIED = "operation_completed_result_unavailable"
UNKNOWN = ("operation_failed_result_unavailable", "request_timeout")
DEAD = ("engine_dead", "worker_crashed", "engine_timeout", "model_not_found", "request_orphaned")
"""The session's engine is gone, and with it the weights that are not saved."""
REFUSED = {"invalid_request": "change what it names", "engine_oom": "take a smaller batch_size or max_length"}
UNSEEN_SECONDS = 120.0
"""How long a request that was accepted may not be found: the service's own store is that slow, says its package."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 30.0
SHARE = 0.1
"""A request is looked at again after this share of the time that it has taken so far: none is waited for needlessly."""


class Api:
    """The sessions of one project."""

    def __init__(self, endpoint: str, token: Callable[[], str], patience: float) -> None:
        self.http = Http(endpoint, lambda: {"Authorization": f"Bearer {token()}"}, patience)
        self._unseen_seconds = min(UNSEEN_SECONDS, patience)

    def post(self, route: str, body: bytes, query: str = "") -> "Response":
        """Send a request that may change something, once."""
        return self.http.send("POST", _path(route, query), content=body, headers=HEADERS)

    def ask(self, method: str, route: str, body: bytes = b"", query: str = "", most: float | None = None) -> "Response":
        """Send a request that may be repeated until it is answered."""
        # An empty body is none: DELETE and GET have no content at all.
        return self.http.ask(method, _path(route, query), content=body or None, headers=HEADERS, most=most)

    def result(self, request: str, is_live: Callable[[], bool]) -> bytes:
        """Wait for what came of a request `SESSION/request/ID`.

        Raises `ResultGone`, `SessionGone`, or the runner's own errors where it failed.
        """
        began = seen = time.monotonic()
        while True:
            try:
                found = msgspec.json.decode(self.ask("GET", f"/{request}").content, type=Envelope)
                seen = time.monotonic()
            except SessionGone as gone:
                # Of a session that is over no request is known, either.
                if not is_live():
                    raise
                if time.monotonic() - seen > self._unseen_seconds:
                    raise ResultGone(str(gone)) from None
                found = Envelope("pending")
            if found.status == "completed":
                return bytes(found.result)
            if found.status == "failed":
                raise self._failure(request, found)
            time.sleep(min(LONGEST_PAUSE, max(FIRST_PAUSE, SHARE * (time.monotonic() - began))))

    def _failure(self, request: str, found: Envelope) -> RunnerError:
        code = found.error_code or ""
        words = f"{self.http.url}: {request}: {code} {found.error or 'failed'}".rstrip(".")
        if code == APPLIED or code in UNKNOWN:
            return ResultGone(words, applied=code == APPLIED)
        if found.should_retry:
            # Sent again only where that is known to do no harm, whatever the service thinks of it.
            time.sleep(min(LONGEST_PAUSE, max(0.0, found.retry_after_sec or 0.0)))
            return ResultGone(words)
        # A new session begins at the last checkpoint; the driver says what that costs.
        if code in DEAD:
            return SessionGone(words)
        if code in REFUSED:
            return RequestError(f"{words}; {REFUSED[code]}.")
        return ServiceError(f"{words} (reference for support: {found.debug_ref or 'none'}); the same command resumes.")


def _path(route: str, query: str) -> str:
    return f"{ROOT}{route}?api-version=v1{query}"
