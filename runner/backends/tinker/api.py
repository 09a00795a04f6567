"""Tinker's API by HTTP: requests by their route, and results, which are waited for."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from runner.errors import ServiceError
from runner.remote.engine.http import Http
from runner.remote.engine.service import ResultGone, SessionGone

if TYPE_CHECKING:
    from httpx2 import Response

ROOT = "/api/v1"
JSON, PROTOBUF = "application/json", "application/x-protobuf"


class Result(msgspec.Struct):
    """What a request has come to: its own keys, or that it is still under way, or why it failed."""

    type: str = ""
    error: str | None = None
    metrics: dict[str, float] | None = None
    path: str = ""
    model_id: str = ""


class Api:
    """The service at one address, with one key."""

    def __init__(self, endpoint: str, key: str, patience: float) -> None:
        self.http = Http(endpoint, lambda: {"X-API-Key": key}, patience)

    def post(self, route: str, body: Mapping[str, object]) -> "Response":
        """Send a request that may change something, once."""
        return self.http.send("POST", f"{ROOT}/{route}", json=body)

    def ask(self, route: str, body: Mapping[str, object]) -> dict[str, object]:
        """Send a request that may be repeated until it is answered."""
        found: dict[str, object] = self.http.ask("POST", f"{ROOT}/{route}", json=body).json()
        return found

    def get(self, route: str) -> "Response":
        """Ask for something that is there."""
        return self.http.ask("GET", f"{ROOT}/{route}")

    def result(self, request: str) -> Result:
        """Wait for a result that is JSON."""
        return msgspec.json.decode(self.content(request, JSON), type=Result)

    def content(self, request: str, accept: str) -> bytes:
        """Wait for a result. Raises `ResultGone`, or `ServiceError` with the service's words where it failed."""
        while True:
            began = time.monotonic()
            try:
                answer = self.http.ask(
                    "POST", f"{ROOT}/retrieve_future", json={"request_id": request}, headers={"Accept": accept}
                )
            except SessionGone as gone:
                raise ResultGone(str(gone)) from None
            if "json" not in answer.headers.get("content-type", ""):
                return answer.content
            found = msgspec.json.decode(answer.content, type=Result)
            if found.error is not None:
                raise ServiceError(f"{self.http.url}: {request} failed: {found.error}; the same command resumes.")
            if found.type != "try_again":
                return answer.content
            # The service holds such a request for a while; one that does not must not be asked without a pause.
            time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))
