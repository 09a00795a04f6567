"""On-disk cache of results that depend only on the base model, in the user's cache.

answers/    the base model's answers to some prompts: the same before each trial of a sweep
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
    """Return the file of a result, given everything that decides it."""
    # str: what JSON lacks, such as a torch.device.
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
        # A draft per process: several may find out the same at once, and the last rename wins with equal content.
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(msgspec.json.encode(value))
        draft.replace(path)
