"""Tools in chat templates: how calls are handed to a template, and what a template writes of them."""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from runner.data import images
from runner.data.json_value import Json
from runner.data.quoting import shown
from runner.data.rows import Message, Tools
from runner.errors import DataError

Chat = list[dict[str, Json]]
"""Turns as templates take them."""
NEEDS = {
    "tools": "the tools that rows declare",
    "calls": "the assistant's calls",
    "results": "what tools answer",
}
"""What a row may have of tools, as messages name it; the names are those of `Abilities`."""


class Abilities(NamedTuple):
    """What a template writes of tools, and whether it takes a call's arguments as an object or as the JSON of one."""

    tools: bool = False
    calls: bool = False
    results: bool = False
    objects: bool = True


def needs(messages: Sequence[Message], tools: Tools | None) -> list[str]:
    """Return what of `NEEDS` a conversation has."""
    found = ["tools"] if tools else []
    if any(turn.tool_calls for turn in messages):
        found.append("calls")
    return found + (["results"] if any(turn.role == "tool" for turn in messages) else [])


def called(turn: Message) -> list[str]:
    """Return the names of the functions that a turn calls."""
    functions = [call.get("function", call) for call in turn.tool_calls or ()]
    return [str(each.get("name")) for each in functions if isinstance(each, dict)]


def as_chat(messages: Sequence[Message], objects: bool) -> Chat:
    """Return turns as a template takes them; keys that are absent stay absent, as transformers has it.

    OpenAI's rows have the arguments of a call as the JSON of an object. Templates cannot decode it, and most write
    objects: https://huggingface.co/docs/transformers/chat_extras. Raises `DataError` for a call without a name, or
    whose arguments are no object.
    """
    chat: Chat = [msgspec.to_builtins(message) for message in messages]
    for number, (turn, message) in enumerate(zip(chat, messages, strict=True), 1):
        if message.images:
            # Without what they hold: templates write the same for each.
            del turn[images.KEY]
            turn["content"] = [
                {"type": "text", "text": each} if isinstance(each, str) else {"type": "image"}
                for each in images.pieces(message.content or "", message.images)
            ]
        if message.tool_calls:
            turn["tool_calls"] = [_call(call, objects, number) for call in message.tool_calls]
    return chat


def _call(call: dict[str, Json], objects: bool, turn: int) -> dict[str, Json]:
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(
            f"a call in turn {turn} has no name; allowed: "
            '{"type": "function", "function": {"name": …, "arguments": …}}; repair it.'
        )
    # Not made up: templates leave out what is missing, as they do in transformers.
    if "arguments" not in function:
        return call
    changed = {
        **function,
        "arguments": _arguments(function["arguments"], objects, f"{function['name']} in turn {turn}"),
    }
    return {**call, "function": changed} if "function" in call else changed


def _arguments(given: Json, objects: bool, place: str) -> Json:
    found = given
    if isinstance(given, str):
        try:
            found = json.loads(given)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, dict):
        raise DataError(
            f"the arguments of the call {place} are {shown(repr(given))}; they must be an object, or the JSON of one; "
            "repair them."
        )
    if objects:
        return found
    # As it is in the row, with its own spaces, where it is the JSON already.
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


TOOL, KEY, VALUE, RESULT = "tool_7f3a", "key_91bc", "value_d20e", "result_5c48"
"""Words that no template has by itself."""


def probed(render: Callable[[Chat, Tools | None], str]) -> Abilities:
    """Return what a template writes of tools, by what comes out of it for a made-up exchange.

    `render` may raise anything. Sources: `supports_tool_calling` of TRL, and `chat_template_caps` of llama.cpp's minja.
    """
    declared = _tried(render, [{"role": "user", "content": "Hi"}], _declared()) or ""
    by_object = _tried(render, _exchange({KEY: VALUE}), None)
    by_text = _tried(render, _exchange(json.dumps({KEY: VALUE})), None)
    # Where an object comes out as Python writes it, or fails, the template wants the JSON.
    objects = by_object is not None and (f"'{KEY}'" not in by_object or by_text is None)
    written = (by_object if objects else by_text) or ""
    return Abilities(
        tools=TOOL in declared,
        calls=all(each in written for each in (TOOL, KEY, VALUE)),
        results=RESULT in written,
        objects=objects,
    )


def _exchange(arguments: Json) -> Chat:
    # Nine letters and digits: Mistral's templates take no other id.
    call: Json = {"id": "callab123", "type": "function", "function": {"name": TOOL, "arguments": arguments}}
    return [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": RESULT, "name": TOOL, "tool_call_id": "callab123"},
    ]


def _declared() -> Tools:
    parameters: Json = {"type": "object", "properties": {"x": {"type": "string", "description": "x"}}}
    return [{"type": "function", "function": {"name": TOOL, "description": "Does it.", "parameters": parameters}}]


def _tried(render: Callable[[Chat, Tools | None], str], chat: Chat, tools: Tools | None) -> str | None:
    """Return what is rendered; None where the template fails."""
    try:
        return render(chat, tools)
    except Exception:  # somebody else's code, given what it may not know: whatever it raises, it cannot do it
        return None
