"""Small pictures as rows hold them."""

import json
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

ADDRESS = "https://example.com/oak.png"


def picture(
    width: int = 8, height: int = 8, format: str = "PNG", mode: str = "RGB", media: str = "", shade: int = 0
) -> str:
    """Return a `data:` URI of a picture of one colour; `media` names it another format than it has."""
    content = BytesIO()
    Image.new(mode, (width, height), shade).save(content, format)
    return f"data:image/{media or format.lower()};base64,{b64encode(content.getvalue()).decode()}"


def part(url: str, **keys: Any) -> dict[str, Any]:
    """Return the part of a content that holds an image."""
    return {"type": "image_url", "image_url": {"url": url, **keys}}


def asked(text: str, *parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a turn of the user, its text before the images."""
    return [{"role": "user", "content": [{"type": "text", "text": text}, *parts]}]


def conversation(number: int, *parts: dict[str, Any]) -> dict[str, Any]:
    """Return a row for SFT; every number gives another one."""
    return {
        "messages": [
            *asked(f"What is on picture {number}?", *parts),
            {"role": "assistant", "content": f"{number} oaks."},
        ]
    }


def write_conversations(path: Path, count: int, first: int = 0) -> list[dict[str, Any]]:
    """Write rows with a picture each, and return them."""
    rows = [conversation(number, part(picture(shade=number))) for number in range(first, first + count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return rows
