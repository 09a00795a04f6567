"""Exceptions of the SDKs classified: may the fault pass, and may the request have been executed nevertheless?

Every exception of the SDKs (openai, azure-core, azure-identity, httpx2) becomes a `Fault`; a fault that does not
pass, or not in time, becomes one of the runner's own errors, told in a sentence.
"""

from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any, Literal

import httpx2
import openai
from azure.core import exceptions as azure

from runner.errors import AccessError, DataError, RequestError, RunnerError, ServiceError
from runner.hosted.wording import line, retry_after

FOREIGN = (
    openai.OpenAIError, azure.AzureError, azure.DeserializationError,
    httpx2.HTTPError, httpx2.StreamError, JSONDecodeError,
)  # fmt: skip
"""What the SDKs raise; the last is an answer that is no JSON."""

Kind = Literal[
    "unreachable",
    "lost",
    "server",
    "quota",
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
UNCERTAIN: frozenset[Kind] = frozenset({"lost", "server"})
"""The service may have done what was asked, and only the answer did not come."""


class PageError(httpx2.DecodingError):
    """A web page came, with a good status, where the service should answer: a proxy's, or a wrong address."""


@dataclass(frozen=True)
class Fault:
    """A judged error: its kind, the service's own words if any, and how many seconds it asks us to wait."""

    kind: Kind
    text: str
    retry_after: float | None = None


def classify(error: Exception) -> Fault:
    """Return what an exception of the SDKs means."""
    if isinstance(error, openai.APIStatusError):
        return _status(error.status_code, _words(error.body) or error.response.text, error.response.headers)
    if isinstance(error, azure.ClientAuthenticationError) and error.response is None:
        return Fault("credential", line(str(error)))
    if isinstance(error, azure.HttpResponseError) and error.response is not None:
        words = (error.error.message or error.error.code) if error.error else error.message
        return _status(error.status_code or 0, str(words), getattr(error.response, "headers", {}))
    if isinstance(error, azure.ServiceRequestError):
        return Fault("unreachable", "no connection")
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Fault("unreachable", "no connection")
    if isinstance(cause, PageError):
        return Fault("missing", "a web page came where the service should answer")
    return Fault("lost", "no answer in time" if isinstance(cause, httpx2.TimeoutException) else "the connection broke")


def _status(status: int, words: str, headers: Any) -> Fault:
    if status < 400:
        return Fault("lost", "the answer is broken")
    text = f"{status} {line(words)}".strip()
    if status in (408, 429) or status >= 500:
        kind: Kind = "quota" if status == 429 else "server"
        return Fault(kind, text, retry_after(headers.get("retry-after")))
    if "content_filter" in words or "content management policy" in words or "content filter" in words.lower():
        return Fault("filtered", text)
    kinds: dict[int, Kind] = {401: "token", 403: "role", 404: "missing", 409: "conflict"}
    return Fault(kinds.get(status, "refused"), text)


def told(fault: Fault, what: str, endpoint: str) -> RunnerError:
    """Return the error to tell: what was being done, what came back, what to do."""
    head = f"{what}: {fault.text}"
    match fault.kind:
        case "credential":
            return AccessError(
                f"{what}: no credential works ({fault.text}); log in with `az login`, or set those of a service "
                "principal (AZURE_TENANT_ID, AZURE_CLIENT_ID, …); backend.azure.credential names one way only."
            )
        case "token":
            return AccessError(
                f"{head}; the service does not take our token; log in again (`az login`), to the tenant of {endpoint}."
            )
        case "role":
            return AccessError(
                f"{head}; the credential lacks a role; it needs Foundry User on the project (once Azure AI User), for "
                "deployments Cognitive Services Contributor on the resource; ask an owner, and allow some minutes."
            )
        case "missing":
            return AccessError(
                f"{head}; the service knows nothing of that name; check it, and the endpoint, {endpoint}: it should "
                "read https://RESOURCE.services.ai.azure.com/api/projects/PROJECT."
            )
        case "quota":
            return ServiceError(
                f"{head}; a quota of the service is used up; wait, or raise it; the same command goes on."
            )
        case "refused" | "filtered" | "conflict":
            return RequestError(f"{head}; the service refuses it as it stands; change what it names.")
        case _:
            return ServiceError(
                f"{head}; {endpoint} fails or cannot be reached; what was created stands; the same command goes on."
            )


def refused_data(words: str, file: str) -> DataError:
    """Return the error for a file that the service could not process."""
    return DataError(
        f"{file}: the service refuses this file: {line(words) or 'it gives no reason'}; fix the data; if "
        "the fault is the service's, remove the file with python -m runner.clean, and the same command uploads it anew."
    )


def _words(body: object) -> str:
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict):
            code, message = inner.get("code") or "", inner.get("message") or ""
            return f"{code}: {message}" if code and message else str(code or message)
        return str(inner)
    return ""
