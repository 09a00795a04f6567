"""What goes over the wire: a request as received, an answer as sent, and a refusal as an exception."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar


@dataclass
class Request:
    """A request as the service received it; `headers` have lower-case names, `time` is the machine's own clock.

    `status` is what was answered, None where the connection was cut before any answer.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    time: float
    status: int | None = None

    def json(self) -> Any:
        """Return the body as JSON; refuse the request where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise Refusal(400, "The request body is not valid JSON.", "invalid_json") from None


@dataclass
class Stream:
    """Server-sent events: `named` ones carry their type as a name; others have `[DONE]` at their end."""

    events: list[dict[str, Any]]
    named: bool

    def pieces(self) -> Iterator[bytes]:
        """Yield each event as it is sent."""
        for event in self.events:
            name = f"event: {event['type']}\n" if self.named else ""
            yield f"{name}data: {json.dumps(event)}\n\n".encode()
        if not self.named:
            yield b"data: [DONE]\n\n"


@dataclass
class Answer:
    """An answer: a dict is sent as JSON, text and bytes as they are, a stream event by event."""

    status: int = 200
    body: dict[str, Any] | str | bytes | Stream | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def pieces(self) -> list[bytes]:
        """Return the body's bytes, in the pieces that they leave in."""
        match self.body:
            case None:
                return []
            case bytes():
                return [self.body]
            case str():
                return [self.body.encode()]
            case Stream():
                return list(self.body.pieces())
        return [json.dumps(self.body).encode()]

    def content_type(self) -> str:
        """Return the body's media type."""
        if isinstance(self.body, dict):
            return "application/json"
        if isinstance(self.body, Stream):
            return "text/event-stream"
        return "application/octet-stream" if isinstance(self.body, bytes) else "text/html"


@dataclass
class Reply(Answer):
    """An answer and how it goes out: `way` is "whole", "cut" in its middle or "reset"; after `delay` seconds."""

    way: str = "whole"
    delay: float = 0.0

    @classmethod
    def of(cls, answer: Answer, way: str = "whole", delay: float = 0.0) -> "Reply":
        """Return an answer that goes out in a certain way."""
        return cls(answer.status, answer.body, answer.headers, way, delay)


class Refusal(Exception):
    """A request that the service turns down, with the error body that both OpenAI and Azure use."""

    def __init__(self, status: int, message: str, code: str | None, param: str | None = None) -> None:
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.answer = Answer(status, {"error": {"code": code, "message": message, "param": param, "type": kind}})


class Matched(Protocol):
    """An operation of a service, as far as requests are matched with it."""

    @property
    def method(self) -> str:
        """The HTTP method."""

    @property
    def pattern(self) -> re.Pattern[str]:
        """What the whole path has to be, with its ids as groups."""


Found = TypeVar("Found", bound=Matched)


def match(routes: Sequence[Found], request: Request) -> tuple[Found, dict[str, str]] | None:
    """Return the operation that a request asks for and the ids in its path."""
    for route in routes:
        found = route.pattern.fullmatch(request.path) if route.method == request.method else None
        if found is not None:
            return route, found.groupdict()
    return None
