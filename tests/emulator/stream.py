"""An answer reported piece by piece, as with `stream=True`: the events that build up to what is answered otherwise."""

import re
from collections.abc import Iterator
from typing import Any

from tests.emulator.messages import Stream


def chat(answer: dict[str, Any], usage: bool) -> Stream:
    """Return a chat completion in chunks: the role, a chunk a word, the reason of the end, and the usage if asked."""
    text = answer["choices"][0]["message"]["content"]
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words(text)), {}]
    common = {key: answer[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    chunks = [
        {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]}
        for delta in deltas
    ]
    if usage:
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**common, "choices": [], "usage": answer["usage"]})
    return Stream(chunks, named=False)


def response(answer: dict[str, Any]) -> Stream:
    """Return a response in events, numbered: begun, its one message, a delta a word, and the whole at the end."""
    events = [{**event, "sequence_number": number} for number, event in enumerate(_response(answer))]
    return Stream(events, named=True)


def _response(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    (item,) = answer["output"]
    (part,) = item["content"]
    begun = answer | {"status": "in_progress", "completed_at": None, "output": []}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    empty = item | {"status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": empty}
    yield {"type": "response.content_part.added", **at, "part": part | {"text": ""}}
    for word in words(part["text"]):
        yield {"type": "response.output_text.delta", **at, "delta": word, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": answer}


def words(text: str) -> list[str]:
    """Return a text in words, each with the blanks behind it; joined they are the text."""
    return re.findall(r"\S+\s*|\s+", text)
