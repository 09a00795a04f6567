"""Content given as a list of parts: its texts are joined, so that identity does not depend on how it was cut."""

from typing import Any

from runner.data.rows import BadRow


def join_parts(value: Any) -> Any:
    """Return decoded JSON with each `content` that is a list of text parts replaced by their text.

    Raises `BadRow` for a part that is not text.
    """
    if isinstance(value, list):
        return [join_parts(each) for each in value]
    if isinstance(value, dict):
        return {key: _text(each) if key == "content" else join_parts(each) for key, each in value.items()}
    return value


def _text(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise BadRow(
                "not-text",
                f"a message's content has a part of type {kind!r}; only text is learned; leave it out",
            )
    return "".join(part["text"] for part in content)
