"""Content given as a list of parts: its texts are joined, so that identity does not depend on how it was cut."""

from runner.data.quoting import shown
from runner.data.rows import BadRow


def join_parts(value: object) -> object:
    """Return decoded JSON in which each message's content is a text, joined from its parts if it has some.

    Raises `BadRow` for a part that is not text.
    """
    if isinstance(value, list):
        return [join_parts(each) for each in value]
    if not isinstance(value, dict):
        return value
    # Only in messages: lists elsewhere, as in a tool's JSON schema, are left as they are.
    if "role" in value and isinstance(value.get("content"), list):
        return value | {"content": _joined(value["content"])}
    return {key: join_parts(each) for key, each in value.items()}


def _joined(parts: list[object]) -> str:
    texts: list[str] = []
    for part in parts:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise BadRow("not-text", f"a message's content has {_problem(part)}")
        texts.append(part["text"])
    return "".join(texts)  # no separator, as services join them


def _problem(part: object) -> str:
    """Say what is wrong with a part, and how to change it."""
    layout = '{"type": "text", "text": …}'
    if not isinstance(part, dict):
        return f"a part that is {'text' if isinstance(part, str) else 'no object'}; allowed: {layout}; write it so"
    kind = part.get("type")
    named = shown(repr(kind))
    if kind == "text":
        keys = shown(", ".join(part))
        return f"a part of type 'text' with the keys {keys}; its text is in `text`, as {layout}; write it so"
    if isinstance(part.get("text"), str):
        return f"a part of type {named}; a text is written as {layout}; write it so, or leave the part out"
    return f"a part of type {named}; only text is learned; leave it out"
