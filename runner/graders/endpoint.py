"""endpoint: a service of one's own gives the answer a score.

Contract: Microsoft Foundry's endpoint grader (private preview): POST `{sample, item, trace_id}`, answered by
`{"score": number}`; 1 MB each way, 10 minutes, three retries.
"""

import json
import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

import msgspec

from runner.errors import AccessError
from runner.graders import Grade, Grader, Grading, Judge, Subject, templates
from runner.graders.secret import Secret
from runner.hosted.wording import retry_after

if TYPE_CHECKING:
    from httpx2 import Client, Response

MOST_BYTES = 1_000_000
ANSWER_SECONDS = 600.0
CONNECT_SECONDS = 10.0
RETRIES = 3
PAUSE_SECONDS = 0.5
"""Before the first retry, doubled each time and jittered; a `Retry-After` counts instead, up to `LONGEST_PAUSE`."""
LONGEST_PAUSE = 60.0


class Scored(msgspec.Struct, frozen=True):
    """What the endpoint answers."""

    score: float


class Endpoint(Grader, frozen=True, kw_only=True):
    """The endpoint's score, kept as it is, outside of 0 to 1, too; what is no number is an error.

    `headers` are secrets: `$NAME` or `Bearer $NAME` is read from the environment, a value that is written down is shown
    as `***` wherever the configuration goes. `rate_limit` is the most requests per second; the preview's pages do not
    name its unit.
    """

    type: ClassVar[str] = "endpoint"
    hosted: ClassVar[bool] = True
    concurrent: ClassVar[bool] = True
    secrets: ClassVar[tuple[str, ...]] = ("headers",)

    url: str
    headers: dict[str, Secret] = msgspec.field(default_factory=dict)
    rate_limit: float | None = None

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the address; no message repeats what could be a secret in it."""
        if find_spec("httpx2") is None:
            yield "type: endpoint needs the package httpx2; pip install 'runner[graders]'."
        where = _split(self.url)
        if where is None or where.username or where.password or where.query or where.fragment:
            yield "url: holds more than an address (a user, a password, ?… or #…); keys belong in headers, as $NAME."
        elif not where.hostname or (where.scheme != "https" and not _local(where)):
            yield "url: allowed: https://HOST/PATH, http only for an endpoint on this machine."
        if self.rate_limit is not None and not self.rate_limit > 0:
            yield f"rate_limit: got {self.rate_limit:g}; allowed: more than 0, requests per second."

    def warnings(self) -> Iterable[str]:
        """Return which secrets are written down."""
        for name, secret in self.headers.items():
            if secret.variable is None:
                yield f"endpoint: the value of the header {name} is written down; write $NAME and set that variable."

    @contextmanager
    def grading(self, judge: Judge | None) -> Iterator[Grading]:
        """Lend what asks the endpoint. Raises `AccessError` where a header's variable is not set."""
        import httpx2

        try:
            headers = {name: secret.reveal() for name, secret in self.headers.items()}
        except AccessError as error:
            raise AccessError(f"{self.name or self.type}: headers: {error}") from None
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        # Redirects are not followed: they would take the headers elsewhere.
        with httpx2.Client(headers=headers, timeout=timeout, follow_redirects=False) as client:
            asking = _Asking(client, self.url, self.rate_limit)
            yield asking.grade


@dataclass
class _Asking:
    """Asks an endpoint, each thread in its turn. Errors name its host and nothing else of it."""

    client: "Client"
    url: str
    rate_limit: float | None
    turn: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def grade(self, subject: Subject) -> Grade:
        """Return the endpoint's score, or what went wrong."""
        sample = templates.sample_values(subject.sample)
        body = json.dumps({"sample": sample, "item": dict(subject.item), "trace_id": uuid4().hex}).encode()
        if len(body) > MOST_BYTES:
            return self._error(f"the row and its answer are {len(body):,} bytes; allowed: {MOST_BYTES:,}")
        said, wait = "", 0.0
        for attempt in range(1 + RETRIES):
            if attempt:
                time.sleep(wait)
            found, said, wait = self._attempt(body, PAUSE_SECONDS * 2**attempt)
            if found is not None:
                return found
        return self._error(f"{said}, {1 + RETRIES} times")

    def _attempt(self, body: bytes, pause: float) -> tuple[Grade | None, str, float]:
        """Return a grade; or None, why there is none yet, and the seconds to wait before asking again."""
        import httpx2

        self._wait_for_turn()
        wait = pause * random.uniform(0.5, 1.0)
        try:
            # Streamed, so that a page without end is noticed after a megabyte and not when memory is full.
            headers = {"Content-Type": "application/json"}
            with self.client.stream("POST", self.url, content=body, headers=headers) as response:
                # What may pass; any other code would be the same at the next try.
                if response.status_code == 429 or response.status_code >= 500:
                    asked = retry_after(response.headers.get("retry-after"))
                    text = f"it answers {response.status_code}"
                    if asked is not None and asked > LONGEST_PAUSE:
                        text += f" and asks to wait {asked:,.0f} s, more than {LONGEST_PAUSE:.0f} s"
                        return self._error(text), "", 0.0
                    return None, text, wait if asked is None else asked
                return self._read(response), "", 0.0
        except httpx2.TimeoutException:
            return None, "it does not answer in time", wait
        except httpx2.HTTPError:  # its text may quote what was sent
            return None, "it cannot be reached, or the connection broke", wait

    def _read(self, response: "Response") -> Grade:
        if response.status_code != 200:
            return self._error(f"it answers {response.status_code}; allowed: 200")
        content = b""
        for piece in response.iter_bytes():
            content += piece
            if len(content) > MOST_BYTES:
                return self._error(f"its answer is longer than {MOST_BYTES:,} bytes")
        try:
            score = msgspec.json.decode(content, type=Scored).score
        except msgspec.DecodeError as error:
            return self._error(f'its answer is not {{"score": NUMBER}}: {error}')
        return Grade(score)

    def _error(self, what: str) -> Grade:
        return Grade(None, error=f"{urlsplit(self.url).hostname}: {what}.")

    def _wait_for_turn(self) -> None:
        if self.rate_limit is None:
            return
        with self.lock:
            due = max(time.monotonic(), self.turn)
            # Turns are given out under the lock and waited for outside of it, so that many threads can wait at once.
            self.turn = due + 1 / self.rate_limit
        time.sleep(max(0.0, due - time.monotonic()))


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:  # a bracket too many
        return None


def _local(where: SplitResult) -> bool:
    return where.scheme == "http" and where.hostname in ("127.0.0.1", "localhost", "::1")


GRADER = Endpoint
