"""Content given as a list of parts: its texts are joined, so that identity does not depend on how it was cut."""

from typing import Any

from runner.data.rows import BadRow


def join_parts(value: Any) -> Any:
    """Return decoded JSON in which each message's content is a text, joined from its parts if it has some.

    Raises `BadRow` for a part that is not text.
    """
    if isinstance(value, list):
        return [join_parts(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "role" in value and isinstance(value.get("content"), list):
        return value | {"content": _joined(value["content"])}
    return {key: join_parts(each) for key, each in value.items()}


def _joined(parts: list[Any]) -> str:
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise BadRow(
                "not-text",
                f"a message's content has a part of type {kind!r}; only text is learned; leave it out",
            )
    return "".join(part["text"] for part in parts)
