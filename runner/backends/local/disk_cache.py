"""What holds for a model whenever it is asked again: worked out once, kept in the user's cache.

answers/    what the untouched model says to some prompts: the same before each trial of a sweep
layouts/    whether packed rows have the model's own values
"""

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec

from runner import cache

T = TypeVar("T")


def place(kind: str, *decided_by: object) -> Path:
    """Return the file for what all that it is decided by comes to."""
    key = msgspec.json.encode(decided_by, enc_hook=str)
    return cache.user_folder() / kind / f"{sha256(key).hexdigest()[:32]}.json"


def read(path: Path, form: type[T]) -> T | None:
    """Return what is known; a torn or missing file is not."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=form)
    return None


def keep(path: Path, value: object) -> None:
    """Keep a value; a cache that cannot be written costs nothing but the time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(msgspec.json.encode(value))
        draft.replace(path)
