"""The `chat.completion` of OpenAI's chat API, as deployed models and the judge answer with it."""

import json
from typing import Any

from tests.emulator.records import identifier


def completion(model: str, now: float, prompt: str, text: str, calls: list[Any] | None = None) -> dict[str, Any]:
    """Return an answer whose usage counts about four bytes per token of the prompt and of the text.

    Calls, as `call` makes them, take the text's place.
    """
    tokens = {"prompt_tokens": len(prompt.encode()) // 4, "completion_tokens": len(text.encode()) // 4}
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message |= {"content": None, "tool_calls": calls}
    return {
        "id": identifier("chatcmpl-"),
        "object": "chat.completion",
        "created": int(now),
        "model": model,
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop", "logprobs": None}
        ],
        "usage": {**tokens, "total_tokens": sum(tokens.values())},
    }


def call(tool: dict[str, Any], said: str) -> dict[str, Any]:
    """Return a call of a tool, which is declared as in either interface, with what was said last as its argument."""
    name = (tool.get("function") or tool)["name"]
    arguments = json.dumps({"said": said}, ensure_ascii=False)
    return {"id": identifier("call_"), "type": "function", "function": {"name": name, "arguments": arguments}}
