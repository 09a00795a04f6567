"""How files of a run's folder are written: whole or not at all, and named so that any system takes the name."""

from pathlib import Path

import msgspec


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, indented, as people open it, too, in place of what was there."""
    write(path, msgspec.json.format(msgspec.json.encode(value)) + b"\n")


def write(path: Path, content: bytes) -> None:
    """Write a file in one step: a reader, and a process after a kill, finds what was there before or all of it."""
    # Next to the file: renaming is one step only within a file system.
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(content)
    draft.replace(path)


def safe_name(text: str) -> str:
    """Return a text as part of a folder's name: letters, digits, - _ and ., at most 60 characters, its end.

    It does not begin or end with - or ., which a shell, or a person, would take for something else.
    """
    # Letters of any language: a data set called by a Chinese name keeps it.
    return "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in text).strip("-.")[-60:]
