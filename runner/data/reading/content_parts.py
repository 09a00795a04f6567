"""What rows say in two ways, brought into one, so that their identity does not depend on it.

Content may be a list of parts, whose texts are joined; tools may be JSON in a text, as tables have them.
"""

import msgspec

from runner.data import images
from runner.data.images import Image
from runner.data.quoting import shown
from runner.data.rows import BadRow

SEEING = ("user", "human")
"""Whose turns may hold images, by role or, in ShareGPT's, by `from`: what others say is learned, or is a rule."""
TURNS = {"role": "content", "from": "value"}
"""The key of who speaks in a turn, and of what is said; the second pair is ShareGPT's."""


def join_parts(value: object) -> object:
    """Return decoded JSON in which each message's content is a text, joined from its parts if it has some.

    Images among them become `image_parts` of the message. Raises `BadRow` for any other part, for an image of another
    role than the user, and for one that no service takes.
    """
    if isinstance(value, list):
        return [join_parts(each) for each in value]
    if not isinstance(value, dict):
        return value
    # Only in messages: lists elsewhere, as in a tool's JSON schema, are left as they are.
    for speaker, said in TURNS.items():
        if speaker in value and isinstance(value.get(said), list):
            text, found = _joined(value[said], value[speaker])
            return value | {said: text} | ({images.KEY: found} if found else {})
    return {key: join_parts(each) for key, each in value.items()}


def list_tools(row: object) -> object:
    """Return a row with its tools as a list, where they are the JSON of one in a text, as TRL takes them, too."""
    if not isinstance(row, dict):
        return row
    # Not within lists: in the arguments of a call a text of that name is a text.
    return {key: _listed(each) if key == "tools" else list_tools(each) for key, each in row.items()}


def _listed(tools: object) -> object:
    if not isinstance(tools, str):
        return tools
    try:
        found = msgspec.json.decode(tools.strip() or "null")  # a blank cell of a table
    except (msgspec.DecodeError, RecursionError):
        return tools
    return found if found is None or isinstance(found, list) else tools


def _joined(parts: list[object], role: object) -> tuple[str, list[object]]:
    text, found = "", list[object]()
    for part in parts:
        if isinstance(part, dict) and part.get("type") == "image_url":
            image = _image(part, len(text), role)
            found.append(msgspec.to_builtins(image))
        elif isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            text += part["text"]  # no separator, as services join them
        else:
            raise BadRow("not-text", f"a message's content has {_problem(part)}")
    return text, found


def _image(part: dict[str, object], at: int, role: object) -> Image:
    """Return an image of a turn. Raises `BadRow` for one that no service takes."""
    layout = '{"type": "image_url", "image_url": {"url": …, "detail": "low", "high" or "auto"}}'
    if role not in SEEING:
        raise BadRow("image", f"a turn of the {shown(str(role))} holds an image; only the user's may; move it there")
    value = part.get("image_url")
    given = {"at": at, **value} if isinstance(value, dict) else value
    try:
        image = msgspec.convert(given, Image)
    except msgspec.ValidationError as error:
        raise BadRow("image", f"an image cannot be read ({error}); allowed: {layout}; write it so") from None
    # `at` is ours: a file that has it would put the image elsewhere.
    if image.at != at or part.keys() - {"type", "image_url"}:
        raise BadRow("image", f"an image has other keys than {layout}; leave them out")
    try:
        images.look_into(image)
    except ValueError as error:
        raise BadRow("image", f"the image {image.name} {error}") from None
    return image


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
    return f"a part of type {named}; only text and images (image_url) are read; leave it out"
