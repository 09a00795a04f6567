"""Images as data sets have them, put where services take them: as parts of a turn's content.

A column `images` (or `image`) next to the turns, whose places are marked by `{"type": "image"}` or by `<image>` in the
text, and at the start of the first question where none is marked; or parts that hold the image themselves.
Sources: https://huggingface.co/docs/trl/dataset_formats#vision-datasets,
https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md, https://huggingface.co/docs/transformers/chat_templating_multimodal
"""

from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from runner.data.quoting import shown
from runner.data.reading.content_parts import SEEING, TURNS
from runner.data.rows import BadRow

COLUMNS = ("images", "image")
MARK = "<image>"
HOLDING = ("image", "url", "path", "base64")
"""The keys in which a part may hold its image."""
SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png", b"RIFF": "webp"}

UrlOf = Callable[[object], str]
"""Returns an image as a `data:` URI or an address. Raises `BadRow` for what is neither, and cannot be made one."""


def place_images(row: object, url_of: UrlOf) -> object:
    """Return a decoded row with its images as parts `image_url` of its turns' contents.

    A row without images, or without turns to put them into, is returned as it is. Raises `BadRow` where there are not
    as many places as images, and what `url_of` raises.
    """
    if not isinstance(row, dict):
        return row
    given = list(chain.from_iterable(_listed(row.get(key)) for key in COLUMNS))
    rest = {key: value for key, value in row.items() if key not in COLUMNS or value not in (None, "", [], {})}
    if given:
        rest = _filled({key: value for key, value in rest.items() if key not in COLUMNS}, given, url_of) or rest
    return {key: _own_parts(value, url_of) for key, value in rest.items()}


def read_image(folder: Path | None, value: object) -> str:
    """Return an image of a row as an address or a `data:` URI; of a file, relative to a folder, its content.

    Without a folder, as where the data comes from elsewhere, files are refused. Raises `BadRow`.
    """
    if isinstance(value, dict):  # as `datasets` has them: the bytes, or a path alone
        content, value = value.get("bytes"), value.get("path") or value.get("url")
        if isinstance(content, str) and content:
            return _data_uri(content, str(value or "of bytes"))
    if not isinstance(value, str) or not value:
        raise BadRow("image", f"an image is {shown(repr(value))}; allowed: an address, a file's path or its content")
    if value.startswith(("data:", "http://", "https://")):
        return value
    if folder is None:
        raise BadRow(
            "image",
            f"the image {shown(value)} is named by a path, and the data is not of this machine; give its content "
            "(data:image/png;base64,…) or its address",
        )
    try:
        content = (folder / value.removeprefix("file://")).read_bytes()
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise BadRow(
            "image", f"the image {shown(value)} cannot be read ({said}); paths are relative to the data's file; fix it"
        ) from None
    return _data_uri(b64encode(content).decode(), value)


def _data_uri(encoded: str, name: str) -> str:
    try:
        start = b64decode(encoded[:16])
    except Error:
        start = b""
    media = next((each for signature, each in SIGNATURES.items() if start.startswith(signature)), None)
    if media is None:
        raise BadRow("image", f"the image {shown(name)} is no JPEG, PNG or WEBP; convert it, or leave the row out")
    return f"data:image/{media};base64,{encoded}"


def _filled(row: dict[str, object], given: list[object], url_of: UrlOf) -> dict[str, object] | None:
    """Return a row whose turns have the images given; None where it has no turns."""
    if isinstance(row.get("prompt"), str):
        row = row | {"prompt": [{"role": "user", "content": row["prompt"]}]}
    lists = {key: _turns(value) for key, value in row.items()}
    asking = {key: turns for key, turns in lists.items() if turns is not None and any(map(_asks, turns))}
    if not asking:
        return None
    marked = {key: sum(map(_marks, turns)) for key, turns in asking.items()}
    for key, count in marked.items():
        if count not in (0, len(given)):
            raise BadRow(
                "image", f"the row has {len(given)} images, and `{key}` has {count} places for them; give one to each"
            )
    # Both answers of a pair may repeat the conversation, and its places.
    chosen = [key for key, count in marked.items() if count] or (["prompt"] if "prompt" in asking else list(asking))
    parts: list[dict[str, object]] = [{"type": "image_url", "image_url": {"url": url_of(each)}} for each in given]
    return row | {key: _with(asking[key], iter(parts), marked[key] == 0) for key in chosen}


def _with(turns: list[dict[str, object]], parts: Iterator[dict[str, object]], at_start: bool) -> list[object]:
    """Return turns with images in their places, or all of them before the first question."""
    found = list[object]()
    for turn in turns:
        if _asks(turn):
            content = _content(turn, parts if at_start else iter(()))
            filled = content if at_start else [next(parts) if _is_place(part) else part for part in content]
            turn = turn | {_text_key(turn): filled}
        found.append(turn)
    return found


def _content(turn: dict[str, object], first: Iterator[dict[str, object]]) -> list[object]:
    """Return what a turn says in parts, a mark in its text as a place, with all of `first` before it."""
    content = turn[_text_key(turn)]
    if isinstance(content, list):
        return [*first, *content]
    texts = str(content or "").split(MARK)
    places = chain.from_iterable([{"type": "image"}, {"type": "text", "text": text}] for text in texts[1:])
    return [*first, {"type": "text", "text": texts[0]}, *places]


def _own_parts(value: object, url_of: UrlOf) -> object:
    """Return a value in which parts of contents that hold an image hold it as `image_url`."""
    if isinstance(value, list):
        return [_own_parts(each, url_of) for each in value]
    if not isinstance(value, dict):
        return value
    if "role" in value and isinstance(value.get("content"), list):
        return value | {"content": [_own_part(each, url_of) for each in value["content"]]}
    # One level down: Foundry's pairs have their turns within `input`.
    return {key: _own_parts(each, url_of) if key == "messages" else each for key, each in value.items()}


def _own_part(part: object, url_of: UrlOf) -> object:
    if not isinstance(part, dict) or part.get("type") != "image":
        return part
    key = next((each for each in HOLDING if part.get(each)), None)
    if key is None:
        raise BadRow(
            "image", "a content has a place for an image, and the row has no image for it; give it in `images`"
        )
    held = {"bytes": part[key]} if key == "base64" else part[key]
    return {"type": "image_url", "image_url": {"url": url_of(held)}}


def _turns(value: object) -> list[dict[str, object]] | None:
    """Return a value that is turns, None for any other."""
    if not isinstance(value, list) or not all(isinstance(each, dict) and _says(each) for each in value):
        return None
    return value or None


def _says(turn: dict[str, object]) -> bool:
    return isinstance(turn.get(_text_key(turn), turn), str | list | None)


def _text_key(turn: dict[str, object]) -> str:
    return TURNS["role" if "role" in turn else "from"]


def _asks(turn: dict[str, object]) -> bool:
    return turn.get("role", turn.get("from")) in SEEING


def _marks(turn: dict[str, object]) -> int:
    """Return how many places for images a turn has."""
    return sum(map(_is_place, _content(turn, iter(())))) if _asks(turn) else 0


def _is_place(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "image" and not any(part.get(key) for key in HOLDING)


def _listed(value: object) -> list[object]:
    if value in (None, "", [], {}):
        return []
    return value if isinstance(value, list) else [value]
