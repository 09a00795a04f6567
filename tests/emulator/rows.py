"""The service's rules for the content of a training file: JSON lines in UTF-8, each a conversation or a pair."""

import json
from collections.abc import Iterator
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool")
# Fewer rows fail the job that is to train on them.
FEWEST_ROWS = 10


class Unreadable(Exception):
    """What is wrong with a file, as the service says it."""


def look_into(content: bytes) -> tuple[str, int]:
    """Return the kind of the rows (`chat`, `dpo` or `reinforcement`) and how many there are.

    Raises `Unreadable` where the file as a whole, or one of its lines, breaks the rules.
    """
    kinds = [_kind(row, number) for number, row in _rows(content)]
    if not kinds:
        raise Unreadable("The file is empty.")
    if len(set(kinds)) > 1:
        raise Unreadable(f"The file mixes rows of different formats: {', '.join(sorted(set(kinds)))}.")
    return kinds[0], len(kinds)


def _rows(content: bytes) -> Iterator[tuple[int, Any]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"The file is not UTF-8: byte {error.start} cannot be decoded.") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError:
            raise Unreadable(f"Invalid file format. Line {number} is not valid JSON.") from None


def _kind(row: Any, number: int) -> str:
    if not isinstance(row, dict):
        raise Unreadable(f"Invalid file format. Line {number} is not a JSON object.")
    if "preferred_output" in row or "non_preferred_output" in row:
        _check_pair(row, number)
        return "dpo"
    messages = _messages(row.get("messages"), "messages", number)
    return "chat" if messages[-1]["role"] == "assistant" else "reinforcement"


def _check_pair(row: dict[str, Any], number: int) -> None:
    prompt = row.get("input")
    if not isinstance(prompt, dict):
        raise Unreadable(f"Invalid file format. Line {number}: 'input' is missing or not an object.")
    messages = _messages(prompt.get("messages"), "input.messages", number)
    if messages[-1]["role"] not in ("user", "tool"):
        raise Unreadable(f"Invalid file format. Line {number}: the last message of 'input' must be a user message.")
    for name in ("preferred_output", "non_preferred_output"):
        answer = _messages(row.get(name), name, number)
        if not any(message["role"] == "assistant" for message in answer):
            raise Unreadable(f"Invalid file format. Line {number}: '{name}' holds no assistant message.")
        if any(isinstance(message.get("content"), list) for message in answer):
            raise Unreadable(f"Invalid file format. Line {number}: '{name}' must be text only.")


def _messages(found: Any, name: str, number: int) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not found:
        raise Unreadable(f"Invalid file format. Line {number}: '{name}' is missing or not a list of messages.")
    for message in found:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise Unreadable(f"Invalid file format. Line {number}: '{name}' holds a message with an unknown role.")
        if message.get("weight", 0) not in (0, 1):
            raise Unreadable(f"Invalid file format. Line {number}: 'weight' must be 0 or 1.")
        if not isinstance(message.get("content"), str | list) and not message.get("tool_calls"):
            raise Unreadable(f"Invalid file format. Line {number}: '{name}' holds a message without content.")
    return found
