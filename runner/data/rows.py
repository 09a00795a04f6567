"""What every data format becomes: a `Pair` (preference data) or a `Conversation` (chat data).

A row's identity is the sha256 of its canonical bytes, so that the same content has the same identity in
whatever format it came: files are fingerprinted, duplicates found, splits made and held-out rows matched
across runs by it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

Role = Literal["system", "developer", "user", "assistant", "tool"]
Kind = Literal["preference", "conversation"]


class BadRow(ValueError):
    """A row that cannot be trained on: the rule it breaks, and what was found; what is allowed; the fix."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class Oddity(NamedTuple):
    """Something in a row that may be meant, but seldom is: the rule, and what was found; what to do."""

    rule: str
    message: str


class Message(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """One turn. `weight: 0` leaves an assistant turn out of the loss; tool fields are carried through."""

    role: Role
    content: str | None = None
    name: str | None = None
    weight: Literal[0, 1] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class Conversation(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A whole conversation; the assistant's turns are what is learned."""

    messages: tuple[Message, ...]
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None


class Pair(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A prompt with the answer people prefer and the one they do not."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: list[dict[str, Any]] | None = None
    parallel_tool_calls: bool | None = None

    def as_conversation(self) -> Conversation:
        """Return the prompt with its chosen answer: what supervised learning takes from a pair."""
        return Conversation(self.prompt + self.chosen, self.tools, self.parallel_tool_calls)


Row = Pair | Conversation

_encoder = msgspec.json.Encoder(order="deterministic")


def canonical(value: Row | tuple[Message, ...]) -> bytes:
    """Return the canonical bytes of a row or some turns: one line of JSON, without absent fields."""
    return _encoder.encode(value)


def canonical_lines(rows: Sequence[Row]) -> bytes:
    """Return the canonical bytes of rows, each followed by LF."""
    return _encoder.encode_lines(rows)


def row_id(row: Row) -> bytes:
    """Return the 32-byte identity of a row: the sha256 of its canonical bytes."""
    return hashlib.sha256(canonical(row)).digest()


def prompt_of(row: Row) -> tuple[Message, ...]:
    """Return what a row's last answer replies to: a pair's prompt, or all before the last assistant turn."""
    if isinstance(row, Pair):
        return row.prompt
    last = len(row.messages) - 1
    while last > 0 and row.messages[last].role != "assistant":
        last -= 1
    return row.messages[:last]
