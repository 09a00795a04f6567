"""Exceptions of the SDKs classified: may the fault pass, and may the request have been executed nevertheless?

Every exception of openai and httpx2 becomes a `Fault`; a fault that does not pass, or not in time, becomes one of the
runner's own errors, in a sentence. A backend whose service has further SDKs adds their exceptions, and its own
advice (`Connection.classify` and `error_for`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Literal

import httpx2
import openai

from runner.errors import AccessError, DataError, FullError, RequestError, RunnerError, ServiceError
from runner.hosted.wording import line, retry_after

FOREIGN = (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, JSONDecodeError)
"""What the SDKs raise; the last is an answer that is no JSON."""

Kind = Literal[
    "unreachable",
    "lost",
    "server",
    "quota",
    "full",
    "conflict",
    "token",
    "credential",
    "role",
    "missing",
    "filtered",
    "refused",
]
PASSING: frozenset[Kind] = frozenset({"unreachable", "lost", "server", "quota"})
"""Faults of the moment: the same request may succeed later."""
LAPSED: frozenset[Kind] = frozenset({"token", "credential"})
"""Faults of who we are: a new token may fix them."""
# No rate, which passes by itself: something has to end or be removed. The code is in Azure's specification, the words
# are OpenAI's. Narrow, as a row may have too many of something, too, and waiting makes that no better.
_FULL = re.compile(r"quotaExceeded|maximum number of ([\w-]+ )*(jobs|files)\b|reached the maximum of \d+ active")
UNCERTAIN: frozenset[Kind] = frozenset({"lost", "server"})
"""The service may have done what was asked, and only the answer did not come."""


# openai makes a connection error of whatever is raised while an answer is read, with this as its cause.
class PageError(httpx2.DecodingError):
    """A web page came, with a good status, where the service should answer: a proxy's, or a wrong address."""


@dataclass(frozen=True)
class Fault:
    """A classified error: its kind, the service's own words if any, and how many seconds it asks us to wait."""

    kind: Kind
    text: str
    retry_after: float | None = None


def classify(error: Exception) -> Fault:
    """Return what an exception of the SDKs means."""
    if isinstance(error, openai.APIStatusError):
        return of_status(error.status_code, _words(error.body) or error.response.text, error.response.headers)
    # openai wraps what httpx raised; only the cause says whether anything was sent.
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    # These arise before a byte of the request has left.
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Fault("unreachable", "no connection")
    if isinstance(cause, PageError):
        return Fault("missing", "a web page came where the service should answer")
    # Everything else, a kind that is not known included, counts as lost: the cautious guess, as it makes the
    # caller look before sending again.
    return Fault("lost", "no answer in time" if isinstance(cause, httpx2.TimeoutException) else "the connection broke")


def of_status(status: int, words: str, headers: Mapping[str, str]) -> Fault:
    """Return what an answer with a status means, given the service's words and the answer's headers."""
    # An exception about a good status: the body was cut off, or is no JSON.
    if status < 400:
        return Fault("lost", "the answer is broken")
    text = f"{status} {line(words)}".strip()
    if status in (400, 403, 409, 429) and _FULL.search(words):
        return Fault("full", text)
    if status in (408, 429) or status >= 500:
        # 408 and 5xx may come after the work was done: they are among UNCERTAIN.
        kind: Kind = "quota" if status == 429 else "server"
        return Fault(kind, text, retry_after(headers.get("retry-after")))
    # The code differs by API version, the sentence by service; either will do.
    if "content_filter" in words or "content management policy" in words or "content filter" in words.lower():
        return Fault("filtered", text)
    # 403 is a role with Azure and OpenAI alike: who we are is known, what we may is not enough.
    kinds: dict[int, Kind] = {401: "token", 403: "role", 404: "missing", 409: "conflict"}
    return Fault(kinds.get(status, "refused"), text)


def error_for(fault: Fault, what: str, endpoint: str) -> RunnerError:
    """Return the error for the user: what was being done, what came back, what to do."""
    head = f"{what}: {fault.text}"
    match fault.kind:
        case "credential" | "token" | "role":
            return AccessError(f"{head}; {endpoint} does not let us in; check the credential and what it may do.")
        case "missing":
            return AccessError(
                f"{head}; the service knows nothing of that name; check it, and the endpoint, {endpoint}."
            )
        case "quota":
            return ServiceError(
                f"{head}; a quota of the service is used up; wait, or raise it; the same command continues."
            )
        case "full":
            return FullError(
                f"{head}; the service takes no more of these until one is gone; python -m runner.jobs lists jobs, "
                "python -m runner.clean RUN removes a run's files; the same command continues."
            )
        case "refused" | "filtered" | "conflict":
            return RequestError(f"{head}; the service refuses it; change what it names.")
        case _:
            return ServiceError(
                f"{head}; {endpoint} fails or cannot be reached; what was created is kept; the same command continues."
            )


def refused_data(words: str, file: str) -> DataError:
    """Return the error for a file that the service could not process."""
    return DataError(
        f"{file}: the service refuses this file: {line(words) or 'it gives no reason'}; fix the data; if the "
        "fault is the service's, remove the file with python -m runner.clean, and the same command uploads it again."
    )


def _words(body: object) -> str:
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            code, message = inner.get("code") or "", inner.get("message") or ""
            return f"{code}: {message}" if code and message else str(code or message)
        return str(inner)
    return ""
