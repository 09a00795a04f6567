"""HTTP to a service of training primitives: requests sent once, or until they are answered; faults classified.

Own HTTP and not a service's package: such a package sends again by itself what may have been carried out, and hides
the numbers of its requests, without which nothing can be taken up after a kill.
"""

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from runner.errors import AccessError, RequestError, RunnerError, ServiceError
from runner.hosted.wording import line, retry_after
from runner.remote.engine.service import Conflict, Lost, SessionGone

if TYPE_CHECKING:
    from httpx2 import Client, Response

ANSWER_SECONDS = 60.0
CONNECT_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 30.0
UNDER_WAY = 408
"""A request that is still being carried out is answered with this status, or in words."""

ENGINE_DEAD = "engine_dead"
"""A conflict with this code is none: the session's engine has died, as Foundry's package 1.0.0b1 classifies it."""


class Http:
    """Requests to one service; `patience` is how long a failing one is asked again.

    `key` returns the headers that let us in, and is called for each request, as tokens expire.
    """

    def __init__(self, url: str, key: Callable[[], Mapping[str, str]], patience: float, pause: float = 0.5) -> None:
        self.url, self._key, self._patience, self._pause = url.rstrip("/"), key, patience, pause

    @cached_property
    def _client(self) -> "Client":
        import httpx2

        # One connection is kept: a new one would cost two round trips more for each request.
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        return httpx2.Client(base_url=self.url, timeout=timeout)

    def send(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        most: float | None = None,
    ) -> "Response":
        """Send a request that may change something; again only where it certainly was not carried out.

        Raises `Lost` where that cannot be known, `SessionGone`, `Conflict`, or the runner's own errors.
        """
        began, failures = time.monotonic(), 0
        while True:
            answer = self._sent(method, path, json, content, headers or {})
            if answer is not None and answer.status_code < 400:
                return answer
            # 429 says that nothing was done; so does a connection that was never made, and a reason for a 503.
            turned_away = answer is None or answer.status_code == 429 or _names_reason(answer)
            if answer is not None and not turned_away:
                self._raise(answer, f"{method} {path}")
            if time.monotonic() - began > (self._patience if most is None else most):
                raise self._given_up(f"{method} {path}", answer)
            failures += 1
            asked = retry_after(answer.headers.get("retry-after")) if answer is not None else None
            time.sleep(self.pause(failures) if asked is None else asked)

    def ask(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        most: float | None = None,
    ) -> "Response":
        """Send a request that may be repeated until it is answered, for as long as `patience`, or `most` seconds."""
        began, failures = time.monotonic(), 0
        while True:
            try:
                return self.send(method, path, json=json, content=content, headers=headers, most=most)
            except Lost:
                if time.monotonic() - began > (self._patience if most is None else most):
                    raise self._given_up(f"{method} {path}") from None
                time.sleep(self.pause(failures))
                failures += 1

    def fetch(self, url: str) -> bytes:
        """Return a file by a signed address, which takes no key of ours."""
        import httpx2

        # Few: the address expires, and the same command asks for another.
        for failures in range(3):
            try:
                answer = httpx2.get(url, timeout=ANSWER_SECONDS, follow_redirects=True)
            except httpx2.HTTPError:
                time.sleep(self.pause(failures))
                continue
            if answer.status_code == 200:
                return answer.content
        # Without the address: its signature would let anyone in.
        raise ServiceError(f"{self.url}: a file of the adapter cannot be fetched; the same command resumes.")

    def disconnect(self) -> None:
        """Close the connection; the next request opens another."""
        client = self.__dict__.pop("_client", None)
        if client is not None:
            client.close()

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures."""
        return min(LONGEST_PAUSE_SECONDS, self._pause * 2.0**failures)

    def _sent(
        self, method: str, path: str, json: object, content: bytes | None, headers: Mapping[str, str]
    ) -> "Response | None":
        """Send a request once; None where not a byte of it has left."""
        import httpx2

        # Outside of it: what is wrong with a token is not wrong with the connection.
        own = {**headers, **self._key()}
        try:
            return self._client.request(method, path, json=json, content=content, headers=own)
        # These arise before a byte of the request has left.
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            return None
        except httpx2.HTTPError:
            # None: httpx2's exception holds the request, and with it the key.
            raise Lost("the connection broke") from None

    def _raise(self, answer: "Response", what: str) -> None:
        status, words = answer.status_code, _words(answer)
        head = f"{self.url}: {what}: {status} {words}".strip()
        # 5xx and 408 may come after the work was done, from a proxy that has lost patience.
        if status >= 500 or status == UNDER_WAY:
            raise Lost(head)
        # The ids in a path or a body are a session's or a model's: what is not found is no longer there.
        if status in (404, 410):
            raise SessionGone(head)
        if status == 409 and ENGINE_DEAD in answer.text:
            raise SessionGone(head)
        if status == 409:
            raise Conflict(words)
        if status == 402:
            raise ServiceError(f"{head}; the account's balance is used up; top it up; the same command resumes.")
        if status in (401, 403):
            raise AccessError(f"{head}; the service does not let us in; check the key and what it may do.")
        raise RequestError(f"{head}; the service refuses it; change what it names.")

    def _given_up(self, what: str, answer: "Response | None" = None) -> RunnerError:
        found = "no answer" if answer is None else f"{answer.status_code} {_words(answer)}"
        return ServiceError(
            f"{self.url}: {what}: {found} for {self._patience:.0f} s; it fails or cannot be reached; what is saved "
            "is kept; the same command resumes."
        )


def _names_reason(answer: "Response") -> bool:
    """Say whether a service itself turned a request away with 503: a proxy in front of it names no reason."""
    if answer.status_code != 503:
        return False
    try:
        body = answer.json()
    except ValueError:
        return False
    found = body.get("detail", body) if isinstance(body, dict) else None
    return isinstance(found, dict) and "reason" in found


def _words(answer: "Response") -> str:
    """Return what a service says of an error, in whichever of the usual forms."""
    try:
        body = answer.json()
    except ValueError:
        return line(answer.text)
    found = body.get("error") or body.get("detail") or body.get("message") if isinstance(body, dict) else body
    return line(str(found.get("message", found) if isinstance(found, dict) else found))
