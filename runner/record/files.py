"""How files of a run's folder are written: whole or not at all, and named so that any system takes the name."""

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from runner.errors import DataError

Form = TypeVar("Form")


def read_json(path: Path, form: type[Form]) -> Form | None:
    """Return what a JSON file holds, None where there is no such file. Raises `DataError` where it is damaged."""
    return decoded(path, path.read_bytes(), form) if path.exists() else None


def decoded(path: Path, content: bytes, form: type[Form]) -> Form:
    """Return what JSON, of a file, holds. Raises `DataError` with the file where that is damaged."""
    try:
        return msgspec.json.decode(content, type=form)
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: is damaged ({error}); restore it, or move the folder away to start over.") from error


def read_kept(path: Path, form: type[Form]) -> Form | None:
    """Return what a JSON file holds that can be made again; None without it, and where it is not of this form."""
    try:
        return read_json(path, form)
    except DataError:  # damaged, or of another version
        return None


def whole_lines(path: Path) -> bytes:
    """Return the whole lines of a file to which lines are appended, without what a crash has torn; none without it."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def cut_torn_line(path: Path) -> None:
    """Cut a line off that a crash has torn: what is appended would continue it, and neither could be read."""
    if path.exists() and len(whole := whole_lines(path)) < path.stat().st_size:
        os.truncate(path, len(whole))


def append(path: Path, line: bytes, sync: bool = True) -> None:
    """Append a line; with `sync` wait until it is on the disk. Raises `OSError` with the file's name."""
    try:
        with path.open("ab") as file:
            file.write(line + b"\n")
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:  # a full disk's names no file
        raise OSError(error.errno, error.strerror, str(path)) from error


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
