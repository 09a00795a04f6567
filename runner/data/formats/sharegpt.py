"""ShareGPT conversations: turns with `from` and `value`.

Source: https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md#sharegpt-format
"""

from typing import TypeVar

import msgspec

from runner.data.formats import Format
from runner.data.images import KEY, Image
from runner.data.json_value import Json
from runner.data.kinds.conversation import Conversation
from runner.data.quoting import shown
from runner.data.rows import BadRow, Message, Role, Tools

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
}


Decoded = TypeVar("Decoded")


class Turn(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One turn as it is in the file."""

    sender: str = msgspec.field(name="from")
    value: str
    images: tuple[Image, ...] | None = msgspec.field(default=None, name=KEY)


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file; `tools` is a list, or the JSON text of one."""

    conversations: tuple[Turn, ...]
    system: str | None = None
    tools: Tools | str | None = None


class Call(msgspec.Struct):
    """What a `function_call` turn holds as JSON text."""

    name: str
    arguments: dict[str, Json]


def to_row(raw: Raw) -> Conversation:
    """Translate the speakers; `system` goes first."""
    return Conversation(messages(raw.system, *raw.conversations), tools(raw.tools))


def messages(system: str | None, *turns: Turn) -> tuple[Message, ...]:
    """Return turns as messages, each function call with an id that the observation after it carries.

    Raises `BadRow` for a speaker or a function call that is not understood.
    """
    result = [Message("system", system)] if system else []
    call = ""
    for place, turn in enumerate(turns):
        if turn.sender == "function_call":
            # An id of our own: ShareGPT's turns have none, and the tool's reply has to name the call.
            call = f"call_{place}"
            result.append(Message("assistant", tool_calls=[_function_call(call, turn.value)]))
        else:
            role = _role(turn)
            of_call = call if role == "tool" and call else None
            result.append(Message(role, turn.value, tool_call_id=of_call, images=turn.images))
    return tuple(result)


def tools(given: Tools | str | None) -> Tools | None:
    """Return the tools as a list. Raises `BadRow` for text that is not the JSON of one."""
    if not isinstance(given, str):
        return given
    return _decoded("`tools`", given, Tools) if given.strip() else None


def _role(turn: Turn) -> Role:
    if turn.sender not in ROLES:
        raise BadRow("unknown-role", f"`from` is {shown(repr(turn.sender))}; allowed: {', '.join(ROLES)}; rename it")
    return ROLES[turn.sender]


def _function_call(call: str, text: str) -> dict[str, Json]:
    made = _decoded("a function_call turn", text, Call)
    arguments = msgspec.json.encode(made.arguments).decode()
    return {"id": call, "type": "function", "function": {"name": made.name, "arguments": arguments}}


def _decoded(what: str, text: str, wanted: type[Decoded]) -> Decoded:
    try:
        return msgspec.json.decode(text, type=wanted)
    except msgspec.DecodeError as error:
        allowed = "a list of objects" if wanted is not Call else "an object with `name` and `arguments`"
        raise BadRow("wrong-type", f"{what} is not the JSON of {allowed} ({error}); repair it") from None


FORMAT = Format("sharegpt", "conversation", Raw, to_row)
