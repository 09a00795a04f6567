"""Prompts as OpenAI's two interfaces take them, with the tools that a model may call, and the calls it answers with."""

import json
from typing import Any

from runner.data.images import Image, pieces
from runner.data.json_value import Json
from runner.data.rows import Message, Prompt, Turns


def chat_messages(turns: Turns) -> list[Json]:
    """Return turns for chat completions.

    Source: https://platform.openai.com/docs/api-reference/chat/create
    """
    return [_message(turn) for turn in turns]


def chat_tools(prompt: Prompt) -> dict[str, Json]:
    """Return the tools for chat completions, which are those of the row as they are; nothing where there are none."""
    return {"tools": list(prompt.tools)} if prompt.tools else {}


def _message(turn: Message) -> Json:
    content: dict[str, Json] = {"role": turn.role, "content": turn.parts or ""}
    if turn.tool_calls:
        content["tool_calls"] = [
            {"id": call.get("id") or "", "type": "function", "function": {"name": name, "arguments": arguments}}
            for call in turn.tool_calls
            for name, arguments in [_named(call)]
        ]
    if turn.role == "tool":  # the service refuses an answer without the id of its call
        content["tool_call_id"] = turn.tool_call_id or ""
    return content


def response_input(prompt: Prompt) -> list[Any]:
    """Return turns for responses, where a call and what a tool answers are items of their own.

    Source: https://platform.openai.com/docs/guides/function-calling?api-mode=responses
    """
    items: list[Any] = []
    for turn in prompt.turns:
        if turn.role == "tool":
            output = {"type": "function_call_output", "call_id": turn.tool_call_id or "", "output": turn.content or ""}
            items.append(output)
            continue
        # A turn that only calls has no text, and an empty one is refused.
        if turn.parts or not turn.tool_calls:
            items.append({"role": turn.role, "content": _response_content(turn)})
        for call in turn.tool_calls or ():
            name, arguments = _named(call)
            item = {"type": "function_call", "call_id": call.get("id") or "", "name": name, "arguments": arguments}
            items.append(item)
    return items


def _response_content(turn: Message) -> Json:
    # Other names for the same: https://platform.openai.com/docs/guides/images-vision?api-mode=responses
    if not turn.images:
        return turn.content or ""
    return [_response_part(each) for each in pieces(turn.content or "", turn.images)]


def _response_part(piece: str | Image) -> Json:
    if isinstance(piece, str):
        return {"type": "input_text", "text": piece}
    # Required there, and left out in rows: https://github.com/openai/openai-openapi
    return {"type": "input_image", "image_url": piece.url, "detail": piece.detail or "auto"}


def response_tools(prompt: Prompt) -> dict[str, Any]:
    """Return the tools for responses, which have a function's keys next to its type; nothing where there are none."""
    if not prompt.tools:
        return {}
    # The form is another than in rows: https://platform.openai.com/docs/guides/migrate-to-responses
    return {"tools": [_flat(tool) for tool in prompt.tools]}


def _flat(tool: dict[str, Json]) -> dict[str, Any]:
    function = tool.get("function")
    own = function if isinstance(function, dict) else tool
    # Required there; chat completions take what leaves them out.
    return {"parameters": {"type": "object", "properties": {}}, "strict": False, **own, "type": "function"}


# One form for graders, whichever interface an answer came through.
def response_calls(output: Any) -> list[Json] | None:
    """Return the calls of a response in the form of chat completions, as graders know them; None where it has none."""
    calls: list[Json] = [
        {"id": each.call_id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
        for each in output
        if each.type == "function_call"
    ]
    return calls or None


def _named(call: dict[str, Json]) -> tuple[Json, Json]:
    """Return a call's name, and its arguments as JSON."""
    function = call.get("function")
    own = function if isinstance(function, dict) else call
    arguments = own.get("arguments", "{}")
    return own.get("name"), arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
