"""What is asked of an engine over HTTP on this machine: JSON there and back, by the standard library alone."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

import msgspec

from runner.errors import ServiceError
from runner.record.samples import Reply

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"
Form = TypeVar("Form")

SECONDS = 600
"""The longest that an answer may take: a large model on a CPU, the first of them with the weights still on disk."""
# A proxy of the environment is for other machines.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def post(url: str, body: Mapping[str, Json], seconds: float = SECONDS) -> bytes:
    """Return the answer to a JSON request. Raises `ServiceError` where there is none, or an error."""
    data = json.dumps(body).encode()
    return _open(urllib.request.Request(url, data, {"Content-Type": "application/json"}), seconds)


def get(url: str, seconds: float = 5) -> bytes:
    """Return what is at an address. Raises `ServiceError` where nothing is."""
    return _open(urllib.request.Request(url), seconds)


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


def chat(url: str, model: str, messages: Sequence[Json], limit: int, **more: Json) -> Reply:
    """Return the answer of Chat Completions at an address that ends in `/v1`, of at most so many tokens.

    Raises `ServiceError` where there is none. Source: https://platform.openai.com/docs/api-reference/chat/create
    """
    # `max_tokens`, though OpenAI has a newer name: every engine knows it.
    body: dict[str, Json] = {"model": model, "messages": messages, "max_tokens": limit, "temperature": 0}
    (choice,) = decoded(post(f"{url}/chat/completions", body | more), url, _Completion).choices
    return Reply((choice.message.content or "").strip(), choice.finish_reason != "length")


def decoded(answer: bytes, url: str, form: type[Form]) -> Form:
    """Return an answer by its fields. Raises `ServiceError` for one that has others."""
    try:
        return msgspec.json.decode(answer, type=form)
    except msgspec.MsgspecError as error:
        raise ServiceError(f"{url}: its answer has another form ({error}): {answer[:200]!r}") from error


def _open(request: urllib.request.Request, seconds: float) -> bytes:
    try:
        with _OPENER.open(request, timeout=seconds) as answer:
            found: bytes = answer.read()
            return found
    except urllib.error.HTTPError as error:
        # An engine's page of a traceback is cut: the first line has the reason.
        said = error.read().decode(errors="replace")[:300]
        raise ServiceError(f"{request.full_url}: {error.code} {said}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(f"{request.full_url}: no answer ({error})") from error
