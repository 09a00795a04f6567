"""The service's rules for the content of a training file: JSON lines in UTF-8, each a conversation or a pair."""

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

ROLES = ("system", "developer", "user", "assistant", "tool")
# Fewer rows fail the job that is to train on them.
FEWEST_ROWS = 10
# https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-vision; 10 MB as MiB, what is refused at the
# upload and what by the job, and the words (unverified).
MOST_IMAGES, MOST_IMAGE_BYTES, MOST_ROWS_WITH_IMAGES = 64, 10 * 1024 * 1024, 50_000
HEADS = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "webp": b"RIFF"}


class Unreadable(Exception):
    """What is wrong with a file, as the service says it."""


def look_into(content: bytes) -> tuple[str, int]:
    """Return the kind of the rows (`chat`, `dpo` or `reinforcement`) and how many there are.

    Raises `Unreadable` where the file as a whole, or one of its lines, breaks the rules.
    """
    kinds = [_kind(row, number) for number, row in _rows(content)]
    if with_images(content) > MOST_ROWS_WITH_IMAGES:
        raise Unreadable(f"The file has more than {MOST_ROWS_WITH_IMAGES} examples with images.")
    if not kinds:
        raise Unreadable("The file is empty.")
    if len(set(kinds)) > 1:
        raise Unreadable(f"The file mixes rows of different formats: {', '.join(sorted(set(kinds)))}.")
    return kinds[0], len(kinds)


def with_images(content: bytes) -> int:
    """Return how many rows of a file hold images."""
    return sum(b'"image_url"' in line for line in content.splitlines())


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
    _check_images(found, number)
    return found


def _check_images(messages: list[dict[str, Any]], number: int) -> None:
    lists = [(each["role"], each["content"]) for each in messages if isinstance(each.get("content"), list)]
    parts = [(role, part) for role, content in lists for part in content if part.get("type") != "text"]
    if len(parts) > MOST_IMAGES:
        raise Unreadable(f"Invalid file format. Line {number} has {len(parts)} images; {MOST_IMAGES} are allowed.")
    for role, part in parts:
        if part.get("type") != "image_url" or not isinstance(part.get("image_url"), dict):
            raise Unreadable(f"Invalid file format. Line {number}: '{part.get('type')}' is no content part.")
        if role != "user":
            raise Unreadable(f"Invalid file format. Line {number}: images are not allowed in {role} messages.")
        if problem := _image_problem(part["image_url"]):
            raise Unreadable(f"Invalid file format. Line {number}: {problem}")


def _image_problem(image: dict[str, Any]) -> str:
    if image.get("detail", "auto") not in ("low", "high", "auto"):
        return "'detail' must be low, high or auto."
    url = str(image.get("url"))
    if url.startswith(("http://", "https://")):
        return ""
    media, _, encoded = url.partition(";base64,")
    format = media.removeprefix("data:image/").replace("jpg", "jpeg")
    try:
        content = b64decode(encoded, validate=True)
    except ValueError:
        return "an image is not valid base64."
    if not content.startswith(HEADS.get(format, b"\0no format")):
        return "an image is no JPEG, PNG or WEBP."
    return "" if len(content) <= MOST_IMAGE_BYTES else f"an image is larger than {MOST_IMAGE_BYTES} bytes."
