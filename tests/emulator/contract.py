"""Whether requests and answers keep to the types of the `openai` package; what does not is a violation, for tests.

Azure's answers leave out fields that the types require and have states of their own: what a lax answer may leave
out is filled in before it is looked at. What a test asks for on purpose (a job's odd error) is let pass.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from openai.types import FileDeleted, FileObject
from openai.types.chat import ChatCompletion, ChatCompletionChunk, completion_create_params
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent, job_create_params
from openai.types.fine_tuning.alpha import (
    GraderRunResponse,
    GraderValidateResponse,
    grader_run_params,
    grader_validate_params,
)
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.responses import Response, ResponseStreamEvent, response_create_params
from pydantic import BaseModel, TypeAdapter, ValidationError

from tests.emulator.messages import Answer, Request, Stream
from tests.emulator.openapi import Schemas

ORDERS: dict[str, Any] = {
    "POST /fine_tuning/jobs": job_create_params.JobCreateParams,
    "POST /fine_tuning/alpha/graders/validate": grader_validate_params.GraderValidateParams,
    "POST /fine_tuning/alpha/graders/run": grader_run_params.GraderRunParams,
    "POST /responses": response_create_params.ResponseCreateParamsNonStreaming,
    "POST /chat/completions": completion_create_params.CompletionCreateParamsNonStreaming,
    "POST judge": completion_create_params.CompletionCreateParamsNonStreaming,
}
STREAMED: dict[str, tuple[Any, Any]] = {
    "POST /responses": (response_create_params.ResponseCreateParamsStreaming, ResponseStreamEvent),
    "POST /chat/completions": (completion_create_params.CompletionCreateParamsStreaming, ChatCompletionChunk),
}
"""With `stream`: what is asked, and each event that is answered."""
OBJECTS: dict[str, type[BaseModel]] = {
    "POST /files": FileObject,
    "GET /files/{id}": FileObject,
    "DELETE /files/{id}": FileDeleted,
    "POST /fine_tuning/jobs": FineTuningJob,
    "GET /fine_tuning/jobs/{id}": FineTuningJob,
    "POST /fine_tuning/jobs/{id}/cancel": FineTuningJob,
    "POST /fine_tuning/jobs/{id}/pause": FineTuningJob,
    "POST /fine_tuning/jobs/{id}/resume": FineTuningJob,
    "POST /fine_tuning/alpha/graders/validate": GraderValidateResponse,
    "POST /fine_tuning/alpha/graders/run": GraderRunResponse,
    "POST /responses": Response,
    "POST /chat/completions": ChatCompletion,
    "POST judge": ChatCompletion,
}
LISTS: dict[str, type[BaseModel]] = {
    "GET /files": FileObject,
    "GET /fine_tuning/jobs": FineTuningJob,
    "GET /fine_tuning/jobs/{id}/events": FineTuningJobEvent,
    "GET /fine_tuning/jobs/{id}/checkpoints": FineTuningJobCheckpoint,
}
# What Azure leaves out, and its states in the words of the types.
LEFT_OUT: dict[str, dict[str, Any]] = {"fine_tuning.job": {"organization_id": "", "seed": 0, "result_files": []}}
OWN_STATES: dict[str, dict[str, str]] = {
    "fine_tuning.job": {"pending": "queued", "pausing": "running", "paused": "running", "resuming": "running"},
    "file": {"pending": "uploaded", "running": "uploaded"},
}
# Pausing is in the types as an operation, yet not as a state.
UNTYPED_STATES = {"pausing": "running", "paused": "running", "resuming": "running"}


class Contract:
    """What requests and answers are held to: the types, and an OpenAPI description where there is one."""

    def __init__(self, lax: bool, openapi: Path | None = None) -> None:
        self._lax = lax
        self._schemas = Schemas(openapi, lax) if openapi is not None else None

    def violations(self, name: str, request: Request, answer: Answer) -> list[str]:
        """Return what is wrong with a request and, unless it was refused, with its answer."""
        found = []
        if isinstance(answer.body, Stream):
            order, event = STREAMED[name]
            found += _problems(f"{name}: request", _adapter(order), request.body)
            for each in answer.body.events:
                found += _problems(f"{name}: event", _adapter(event), json.dumps(each).encode())
        elif name in ORDERS:
            found += _problems(f"{name}: request", _adapter(ORDERS[name]), _typed(request.body))
        body = answer.body if answer.status < 300 and isinstance(answer.body, dict) else None
        if body is not None:
            found += self._answer(name, body)
        if self._schemas is not None:
            plain = body and _with_plain_graders(_tolerant(body, self._lax))
            found += self._schemas.violations(name, replace(request, body=_typed(request.body)), plain)
        return found

    def _answer(self, name: str, body: dict[str, Any]) -> list[str]:
        items = body.get("data", []) if name in LISTS else [body]
        model = LISTS.get(name) or OBJECTS.get(name)
        if model is None:
            return []
        found = []
        if name in LISTS and (body.get("object") != "list" or not isinstance(body.get("has_more"), bool)):
            found.append(f"{name}: answer: not a list")
        for item in items:
            text = json.dumps(_with_plain_graders(_tolerant(_filled(item) if self._lax else item, self._lax))).encode()
            found += _problems(f"{name}: answer", TypeAdapter(model), text)
        return found


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _problems(place: str, adapter: TypeAdapter[Any], text: bytes) -> list[str]:
    try:
        adapter.validate_json(text, strict=True)
    except ValidationError as error:
        return [f"{place}: {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    return []


UNTYPED_GRADERS = {"multi": "graders", "endpoint": "url"}
"""Graders that the types have wrongly (`graders` of a multi as one grader) or not at all, each with its own field."""


def _typed(body: bytes) -> bytes:
    """Return a request with a plain grader in place of one that the types do not have as the service does."""
    try:
        return json.dumps(_with_plain_graders(json.loads(body))).encode()
    except ValueError:
        return body


def _with_plain_graders(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_plain_graders(each) for each in value]
    if not isinstance(value, dict):
        return value
    if UNTYPED_GRADERS.get(str(value.get("type")), "type of another object") in value:
        return {"type": "string_check", "name": "", "input": "", "reference": "", "operation": "eq"}
    return {key: _with_plain_graders(each) for key, each in value.items()}


def _filled(body: dict[str, Any]) -> dict[str, Any]:
    kind = body.get("object", "")
    full = LEFT_OUT.get(kind, {}) | body
    if "status" in full:
        full["status"] = OWN_STATES.get(kind, {}).get(full["status"], full["status"])
    return full


def _tolerant(body: dict[str, Any], lax: bool) -> dict[str, Any]:
    """Return a body without what is odd on purpose."""
    if body.get("object") != "fine_tuning.job":
        return body
    error = body.get("error")
    odd = error is not None and not (error.get("code") and error.get("message"))
    status = body["status"] if lax else UNTYPED_STATES.get(body["status"], body["status"])
    return body | {"status": status} | ({"error": None} if odd else {})
