"""What is asked of an engine over HTTP on this machine: JSON there and back, by the standard library alone."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from runner.errors import ServiceError

Json: TypeAlias = "str | int | float | bool | None | Sequence[Json] | Mapping[str, Json]"

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


def _open(request: urllib.request.Request, seconds: float) -> bytes:
    try:
        with _OPENER.open(request, timeout=seconds) as answer:
            found: bytes = answer.read()
            return found
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        raise ServiceError(f"{request.full_url}: {error.code} {said}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ServiceError(f"{request.full_url}: no answer ({error})") from error
