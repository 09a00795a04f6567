"""Faults that tests arm: which request they strike, what they do to it, how often."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tests.emulator.messages import Answer, Refusal, Reply, Request

Operation = Callable[[Request], Answer]

# What a refusal says where the test does not: code and message by status.
REFUSALS = {
    400: ("invalidPayload", "The request is not valid."),
    401: ("invalid_token", "Access token is missing, invalid, audience is incorrect, or has expired."),
    403: ("PermissionDenied", "The principal lacks the required data action for this operation."),
    404: ("404", "Resource not found"),
    408: ("Timeout", "The operation was timeout."),
    409: ("Conflict", "Another operation is being processed."),
    429: ("RateLimitReached", "Requests have exceeded the rate limit of the resource."),
    500: ("InternalServerError", "The server had an error while processing your request."),
    502: ("BadGateway", "Bad gateway"),
    503: ("ServiceUnavailable", "The service is temporarily unable to process your request."),
}


class Fault:
    """A fault: `skip` matching requests pass, then the next `times` are struck (None: all).

    `on` names the requests as `routes.NAMES` does ("GET /fine_tuning/jobs/{id}", "PUT deployment"). Kinds:

    - `status` (`status`, `body`: text or a JSON object, `headers`): this answer, nothing is done
    - `reset_before`, `reset_after`: the connection is reset before, or after, the request was carried out
    - `cut`: carried out, the answer ends in the middle of its body
    - `late` (`before`): the connection is reset; carried out when the next request for the operation `before` comes
    - `dropped`, `failed` (the envelope's keys): a session's request is accepted, and fails before, or after, its work
    - `slow` (`seconds`): carried out at once, answered late
    - `repeat_page`: a list shows its first page whatever `after` says, and claims to have more
    - `shuffle_events`: a list out of order, some items twice; the last one stays last, so that paging still works
    - `vanish`: the service does not know the resource
    - `job_status` (`value`): a job shows this status
    - `malformed`, `truncated`, `refusal`, `filtered`: a judge's answer is half a one that claims to be
      whole, is cut off at the limit of tokens, is a refusal, is stopped by the content filter
    """

    def __init__(self, on: str, kind: str, times: int | None = 1, skip: int = 0, **details: Any) -> None:
        if kind not in KINDS:
            raise ValueError(f"Fault: got kind {kind!r}; allowed: {', '.join(KINDS)}.")
        self.on = on
        self.kind = kind
        self.left = float("inf") if times is None else times
        self.skip = skip
        self.details = details

    def strike(self, request: Request, operation: Operation) -> Reply:
        """Return what goes out in place of the operation's answer."""
        return KINDS[self.kind](request, operation, **self.details)


class Faults:
    """The armed faults, in the order in which they were armed."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    def arm(self, fault: Fault) -> None:
        """Add a fault."""
        self._armed.append(fault)

    def left(self) -> bool:
        """Say whether a fault has not struck as often as it is to."""
        return any(fault.left > 0 for fault in self._armed)

    def take(self, name: str) -> Fault | None:
        """Return the fault that strikes a request for this operation, if one does; every such request counts."""
        fault = next((fault for fault in self._armed if fault.on == name and fault.left > 0), None)
        if fault is None:
            return None
        if fault.skip > 0:
            fault.skip -= 1
            return None
        fault.left -= 1
        return fault


def _status(
    request: Request,
    operation: Operation,
    status: int = 500,
    body: dict[str, Any] | str | None = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    code, message = REFUSALS.get(status, ("unknown", "Something went wrong."))
    error = Refusal(status, message, code).answer.body
    return Reply(status, error if body is None else body, headers or {})


def _reset_before(request: Request, operation: Operation) -> Reply:
    return Reply(way="reset")


def _late(request: Request, operation: Operation, before: str) -> Reply:
    return Reply(way="reset")  # only emulators of training primitives carry it out later


def _as_usual(request: Request, operation: Operation, **envelope: Any) -> Reply:
    return Reply.of(operation(request))  # the emulator of sessions itself drops the work


def _failed(request: Request, operation: Operation, **envelope: Any) -> Reply:
    return Reply(body={"status": "failed", "error": "The result is not available.", **envelope})


def _reset_after(request: Request, operation: Operation) -> Reply:
    operation(request)
    return Reply(way="reset")


def _cut(request: Request, operation: Operation) -> Reply:
    answer = operation(request)
    # Nothing can be cut out of an empty body.
    return Reply.of(answer, way="cut" if answer.pieces() else "reset")


def _slow(request: Request, operation: Operation, seconds: float) -> Reply:
    return Reply.of(operation(request), delay=seconds)


def _repeat_page(request: Request, operation: Operation) -> Reply:
    query = {key: value for key, value in request.query.items() if key != "after"}
    answer = operation(replace(request, query=query))
    if isinstance(answer.body, dict) and "data" in answer.body:
        answer.body["has_more"] = True
    return Reply.of(answer)


def _shuffle_events(request: Request, operation: Operation) -> Reply:
    answer = operation(request)
    if isinstance(answer.body, dict) and answer.body.get("data"):
        *first, last = answer.body["data"]
        answer.body["data"] = [*first[1::2], *first[::2][::-1], *first[:2], last]
    return Reply.of(answer)


def _vanish(request: Request, operation: Operation) -> Reply:
    return Reply.of(Refusal(404, f"The resource '{request.path}' was not found.", "ResourceNotFound").answer)


def _job_status(request: Request, operation: Operation, value: str) -> Reply:
    answer = operation(request)
    if isinstance(answer.body, dict) and "status" in answer.body:
        answer.body["status"] = value
    return Reply.of(answer)


def _judge(request: Request, operation: Operation, reason: str, refusal: str | None = None) -> Reply:
    answer = operation(request)
    if isinstance(answer.body, dict) and "choices" in answer.body:
        (choice,) = answer.body["choices"]
        text = choice["message"]["content"]
        choice["message"] |= {"content": None if refusal else text[: len(text) // 2], "refusal": refusal}
        choice["finish_reason"] = reason
    return Reply.of(answer)


KINDS: dict[str, Callable[..., Reply]] = {
    "status": _status,
    "reset_before": _reset_before,
    "late": _late,
    "dropped": _as_usual,
    "failed": _failed,
    "reset_after": _reset_after,
    "cut": _cut,
    "slow": _slow,
    "repeat_page": _repeat_page,
    "shuffle_events": _shuffle_events,
    "vanish": _vanish,
    "job_status": _job_status,
    "malformed": partial(_judge, reason="stop"),
    "truncated": partial(_judge, reason="length"),
    "refusal": partial(_judge, reason="stop", refusal="I'm sorry, I can't help with that."),
    "filtered": partial(_judge, reason="content_filter"),
}
