"""Chat requests to an OpenAI-compatible endpoint: few at a time, repeated where that may help, within a time limit.

The SDK's own retries are off: they know neither the time limit nor that other threads have to wait, too.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runner.errors import AccessError, JudgeError, RequestError
from runner.graders import Json
from runner.hosted.credentials import token_source
from runner.hosted.wording import line, retry_after
from runner.judging.cache import Judgement
from runner.judging.keys import JudgeKeys

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI
    from openai.types.chat import ChatCompletion

OFFICIAL = "https://api.openai.com/v1"
CONNECT_SECONDS = 10.0
LONGEST_PAUSE = 60.0
"""A longer `Retry-After` is not waited for."""
MOST_LOST = 4
"""How often a question is sent whose answer got lost: each of them may have been paid for."""


class Connection:
    """An endpoint, for many threads at a time."""

    def __init__(self, keys: JudgeKeys, environment: Mapping[str, str]) -> None:
        self.url = find_url(keys, environment)
        self._keys, self._environment = keys, environment
        self._slots = threading.BoundedSemaphore(keys.concurrency)
        self._closed = threading.Event()
        self._not_before = 0.0
        self._opening = threading.Lock()
        self._opened: OpenAI | None = None
        self._secret = ""
        """The key or the latest token, which must not be in any text that is shown."""

    def close(self) -> None:
        """Close it; threads that wait for their turn give up."""
        self._closed.set()
        with self._opening:
            if self._opened is not None:
                self._opened.close()

    @contextmanager
    def slot(self) -> Iterator[float]:
        """Lend one of the places for questions under way, and until when an answer is waited for (`time.monotonic`).

        Waiting for a place does not count: it ends, as those who have one do.
        """
        with self._slots:
            yield time.monotonic() + self._keys.timeout

    def post(self, request: dict[str, Json], until: float) -> Judgement:
        """Ask until there is an answer.

        Raises `JudgeError` where the question is refused or the time is over, `AccessError` where any would be refused.
        """
        import openai

        failures, lost, said = 0, 0, "others wait for it"
        while True:
            self._sleep(min(self._not_before, until) - time.monotonic())
            left = until - time.monotonic()
            if left <= 0:
                raise JudgeError(f"{self._host}: {said}; no answer within {self._keys.timeout:g} s.")
            try:
                # What is left, not a time-out of its own for each try: retries and pauses are within the limit.
                client = self._client().with_options(timeout=left)
                return _judgement(client.chat.completions.create(**request))  # type: ignore[call-overload]
            except (openai.OpenAIError, ValueError) as error:
                said, wait, was_sent = self._classified(error)
            failures, lost = failures + 1, lost + was_sent
            # Doubled from half a second to 8, less up to half: who failed together must not come back together.
            pause = wait if wait is not None else min(8.0, 0.5 * 2 ** (failures - 1)) * random.uniform(0.5, 1.0)
            if pause > LONGEST_PAUSE or time.monotonic() + pause > until or lost == MOST_LOST:
                asked = "" if wait is None else f" and asks to wait {wait:,.0f} s"
                limits = f"{self._keys.timeout:g} s in all, {LONGEST_PAUSE:g} s for a pause, {MOST_LOST} lost"
                raise JudgeError(f"{self._host}: {said}{asked}; given up at try {failures} (limits: {limits}).")
            if wait is None:
                self._sleep(pause)
            else:  # what the endpoint asks of one thread holds for all
                self._not_before = max(self._not_before, time.monotonic() + wait)

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(max(0.0, seconds)):
            raise JudgeError(f"{self._host}: the judge was closed while questions waited.")

    def _classified(self, error: Exception) -> tuple[str, float | None, bool]:
        """Return what a passing error says, the seconds it asks to wait, and whether an answer may have got lost.

        Raises `JudgeError` where this question cannot be answered, `AccessError` where none can.
        """
        import httpx2
        import openai

        if isinstance(error, openai.APIConnectionError):
            # Nothing was sent, so nothing can have been paid for.
            if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
                return "it cannot be reached", None, False
            late = isinstance(error, openai.APITimeoutError)
            return ("no answer in time" if late else "the connection broke"), None, True
        if not isinstance(error, openai.APIStatusError):
            return "its answer is no chat completion", None, True
        status, text = error.status_code, f"{error.status_code} {self._safe(_words(error))}".strip()
        if status in (401, 403):
            raise AccessError(f"{self._host}: {text}; it does not accept {self._identity}; check both.")
        # OpenAI says 429 of a used-up account, too, and no pause helps there:
        # https://platform.openai.com/docs/guides/error-codes
        if status == 404 or error.code == "insufficient_quota":
            raise AccessError(
                f"{self._host}: {text}; check evaluation.judge.url, the account, and the grader's model, which "
                "evaluation.judge.model_names can map to a deployment of yours."
            )
        # Those that the SDK itself would repeat (openai._base_client, _should_retry).
        if status in (408, 409, 429) or status >= 500:
            return f"it answers {text}", retry_after(error.response.headers.get("retry-after")), False
        raise JudgeError(f"{self._host}: {text}; it refuses the question.")

    def _safe(self, text: str) -> str:
        """Return a foreign text without our key or token, however it is quoted in it."""
        secret = self._secret
        return line(text.replace(secret, "[…]") if secret else text)

    @property
    def _identity(self) -> str:
        """What says who we are, as a message names it."""
        if self._keys.credential:
            return f"a token of evaluation.judge.credential={self._keys.credential}"
        return f"the key in {self._keys.key_variable}"

    @property
    def _host(self) -> str:
        return urlsplit(self.url).hostname or ""

    def _client(self) -> "OpenAI":
        from httpx2 import Timeout
        from openai import OpenAI

        with self._opening:
            if self._opened is None:
                # Opened when it is first needed: judgements that are all on disk need neither key nor package.
                timeout = Timeout(self._keys.timeout, connect=CONNECT_SECONDS)
                self._opened = OpenAI(base_url=self.url, api_key=self._key(), max_retries=0, timeout=timeout)
                if self.url != OFFICIAL:  # they leak in from the environment and are nobody else's business
                    self._opened.organization = self._opened.project = None
            return self._opened

    def _key(self) -> str | Callable[[], str]:
        """Return the key, or what returns a token for each request; raises `AccessError` where there is none."""
        if self._keys.credential:
            token = token_source(self._keys.credential, "evaluation.judge.credential")

            def noted() -> str:
                self._secret = token()
                return self._secret

            return noted
        name = self._keys.key_variable
        if name is None:
            return "none"  # the SDK wants one
        if not self._environment.get(name):
            raise AccessError(
                f"{name}: not set; put the judge's key into the environment or .env, or set "
                "evaluation.judge.key_variable to another variable, null where the endpoint asks for no key."
            )
        self._secret = self._environment[name]
        return self._secret


def find_url(keys: JudgeKeys, environment: Mapping[str, str] = os.environ) -> str:
    """Return the endpoint's address, without a slash at its end. Raises `RequestError` where it can be none."""
    place = "evaluation.judge.url" if keys.url else "OPENAI_BASE_URL"
    found = (keys.url or environment.get("OPENAI_BASE_URL") or OFFICIAL).rstrip("/")
    try:
        where = urlsplit(found)
    except ValueError:  # a bracket too many
        where = urlsplit("")
    if where.username or where.password or where.query or where.fragment:
        raise RequestError(
            f"{place}: holds more than an address (a user, a password, ?… or #…); allowed: https://HOST/…/v1; "
            "the key belongs into the variable that evaluation.judge.key_variable names."
        )
    no_secret = keys.key_variable is None and keys.credential is None
    open_to_all = where.hostname in ("127.0.0.1", "localhost", "::1") or no_secret
    if not where.hostname or where.scheme not in (("http", "https") if open_to_all else ("https",)):
        raise RequestError(
            f"{place}: got {found}; allowed: https://HOST/…/v1; http only on this machine, or where "
            "evaluation.judge.key_variable is null, as it would show the key to the network."
        )
    return found


def _judgement(completion: "ChatCompletion | str") -> Judgement:
    """Return what is kept of a chat completion.

    Raises `AccessError` for a web page, which the SDK hands on as a text, and `ValueError` for any other thing.
    """
    if isinstance(completion, str):
        raise AccessError("evaluation.judge.url: a web page or text came where a chat completion should.")
    if not getattr(completion, "choices", None):
        raise ValueError("no choices")
    choice, usage = completion.choices[0], completion.usage
    return Judgement(
        text=choice.message.content or "",
        # Endpoints of others leave out what OpenAI's own always has.
        finish_reason=getattr(choice, "finish_reason", None) or "",
        refusal=getattr(choice.message, "refusal", None) or "",
        model=completion.model or "",
        tool_calls=[call.model_dump(mode="json") for call in getattr(choice.message, "tool_calls", None) or ()] or None,
        input_tokens=usage.prompt_tokens if usage else 0,
        output_tokens=usage.completion_tokens if usage else 0,
    )


def _words(error: "APIStatusError") -> str:
    """Return a refusal's own words."""
    words = error.body.get("message") if isinstance(error.body, dict) else None
    return str(words or error.response.text)
