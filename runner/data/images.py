"""Images in a turn: what they are, where they are in its text, and what can be known of one without fetching it."""

import binascii
import re
import warnings
from base64 import b64decode
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Literal, NamedTuple

import msgspec

from runner.data.json_value import Json
from runner.data.quoting import shown

KEY = "image_parts"
"""The key of images in canonical lines: none that data sets use, so that their `images` is still seen as not read."""
FORMATS = {"image/jpeg": "JPEG", "image/jpg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
"""What hosted services train on, by media type: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-vision
image/jpg is in no registry, and in many files."""
MODES = ("RGB", "RGBA")
MARK = "[image]"
"""What stands for an image in a text for people, and for models that judge by text."""
Detail = Literal["low", "high", "auto"]


class Image(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """An image, after the first `at` characters of its turn's text: an address, or a `data:` URI that holds it."""

    url: str
    detail: Detail | None = None
    at: int = 0

    @property
    def is_here(self) -> bool:
        """Whether it is in the row itself; else it is at an address, from which nothing is fetched."""
        return self.url.startswith("data:")

    @property
    def format(self) -> str:
        """The format of one that is in its row, as services name it: png, jpeg or webp."""
        return FORMATS[self.url.removeprefix("data:").partition(";")[0]].lower()

    @property
    def base64(self) -> str:
        """The content of one that is in its row, as it is written there."""
        return self.url.partition(",")[2]

    @property
    def name(self) -> str:
        """What it is called in messages."""
        # Without a password and what follows `?`: a signed address is a key to whoever reads the message.
        return shown(self.url, 30) if self.is_here else shown(re.sub(r"//[^/@]*@|[?#].*", _bare, self.url), 100)


def _bare(found: re.Match[str]) -> str:
    return "//" if found[0].startswith("//") else ""


class Content(NamedTuple):
    """What an image's head says: width and height in pixels, and how many bytes the image has."""

    width: int
    height: int
    num_bytes: int


def look_into(image: Image) -> Content | None:
    """Return the content of an image that is in its row; None for one at an address, which is not fetched.

    Raises `ValueError` with what was found, what is allowed, and the fix.
    """
    if not image.is_here:
        if not re.match(r"https?://[^/\s]", image.url):
            raise ValueError(
                "is no image; allowed: an address (https://…) or data:image/png;base64,…; give a file's "
                "content so, or put it on a web server"
            )
        return None
    media, comma, encoded = image.url.removeprefix("data:").partition(",")
    named, _, encoding = media.partition(";")
    if named not in FORMATS or encoding != "base64" or not comma:
        raise ValueError(f"begins with 'data:{shown(media)}'; allowed: {_allowed()}; convert it, or leave the row out")
    try:
        # All of it: a text that was cut off somewhere would pass by its head.
        content = b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"is no base64 ({error}); encode the file's bytes again") from None
    return _head(content, named)


def _head(content: bytes, named: str) -> Content:
    """Return what the first bytes of an image say. Raises `ValueError` where they are not what is named."""
    from PIL import Image as Pillow  # only for rows with images: its import takes 60 ms
    from PIL import UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Only the head is read, however many pixels it announces.
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            found = Pillow.open(BytesIO(content), formats=sorted({*FORMATS.values()}))
    except UnidentifiedImageError:
        raise ValueError(f"holds no JPEG, PNG or WEBP, though it is named {named}; encode the file again") from None
    except (Pillow.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"cannot be read ({error}); repair it, or leave the row out") from None
    if found.format != FORMATS[named]:
        media = f"image/{str(found.format).lower()}"
        raise ValueError(f"is named {named}, and its first bytes are a {found.format}'s; write {media}")
    # Grey, palette and CMYK images are common; what the service makes of them is not documented.
    if found.mode not in MODES:
        raise ValueError(f"has the mode {found.mode}; allowed: {' or '.join(MODES)}; convert it")
    return Content(*found.size, len(content))


def _allowed() -> str:
    return ", ".join(f"data:{media};base64,…" for media in FORMATS if media != "image/jpg")


def pieces(text: str, images: Sequence[Image]) -> Iterator[str | Image]:
    """Yield a turn's content in order: the images at their places, and the texts between them."""
    start = 0
    for image in images:
        if image.at > start:
            yield text[start : image.at]
        start = image.at
        yield image
    if text[start:]:
        yield text[start:]


def parts(text: str, images: Sequence[Image]) -> list[Json]:
    """Return a turn's content as rows and chat completions have it.

    Source: https://platform.openai.com/docs/guides/images-vision?api-mode=chat
    """
    return [_part(each) for each in pieces(text, images)]


def _part(piece: str | Image) -> Json:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    detail: dict[str, Json] = {"detail": piece.detail} if piece.detail else {}
    return {"type": "image_url", "image_url": {"url": piece.url, **detail}}


def for_people(value: Json) -> Json:
    """Return a JSON value without what images hold: `[image]` for the part of one, a text for a content with some."""
    if isinstance(value, list):
        texts = [text for part in value if (text := _text_of(part)) is not None]
        if len(texts) == len(value) and any(map(_is_image, value)):
            return "".join(texts)
        return [for_people(each) for each in value]
    if isinstance(value, dict):
        return MARK if _is_image(value) else {key: for_people(each) for key, each in value.items()}
    return value


def _is_image(value: Json) -> bool:
    return isinstance(value, dict) and value.get("type") == "image_url" and "image_url" in value


def _text_of(part: Json) -> str | None:
    """Return a content's part as text; None for what is no such part."""
    if _is_image(part):
        return MARK
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    return text if isinstance(text, str) else None


def marked(text: str, images: Sequence[Image]) -> str:
    """Return a turn's text for people, with a mark where each image is."""
    for image in reversed(images):
        text = f"{text[: image.at]}{MARK}{text[image.at :]}"
    return text
