"""The `chat.completion` of OpenAI's chat API, as deployed models and the judge answer with it."""

from typing import Any

from tests.emulator.records import identifier


def completion(model: str, now: float, prompt: str, text: str) -> dict[str, Any]:
    """Return an answer whose usage counts about four bytes per token of the prompt and of the text."""
    tokens = {"prompt_tokens": len(prompt.encode()) // 4, "completion_tokens": len(text.encode()) // 4}
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": identifier("chatcmpl-"),
        "object": "chat.completion",
        "created": int(now),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {**tokens, "total_tokens": sum(tokens.values())},
    }
