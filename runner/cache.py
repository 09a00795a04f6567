"""The user's cache on disk: folders named by their content, each written once and shared by runs, trials and ranks."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import FileLock

UNUSED_DAYS = 30
"""Entries that nobody has opened for so long make room for new ones."""


def user_folder() -> Path:
    """Return the folder that all runs of a user share: `RUNNER_CACHE`, else `~/.cache/runner`."""
    return Path(os.environ.get("RUNNER_CACHE") or Path.home() / ".cache" / "runner")


def entry(folder: Path, name: str, write: Callable[[Path], None]) -> Path:
    """Return `folder/name`, which `write` fills the first time it is asked for.

    One process writes while others wait for it, and none sees a half-written entry. Raises `OSError` where the folder
    cannot be written to, and whatever `write` raises; nothing is left then.
    """
    path = folder / name
    if not path.is_dir():
        # One lock for the folder, not one per entry: removing the unused must not meet a writer.
        with lock(folder):
            if not path.is_dir():
                _remove_unused(folder)
                _write(path, write)
    with suppress(OSError):  # the time of last use; a read-only cache does without
        os.utime(path)
    return path


def lock(folder: Path, name: str = "", timeout: float = -1) -> "FileLock":
    """Return a lock between this machine's processes, which the system frees when its process dies; not yet taken.

    It waits at most `timeout` seconds, without an end where that is negative.
    """
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{name}.lock", timeout=timeout)


def _write(path: Path, write: Callable[[Path], None]) -> None:
    draft = path.with_name(f".{path.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)  # left by a process that was killed
    draft.mkdir()
    try:
        write(draft)
        # What has its name is whole, since renaming is one step.
        draft.rename(path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - UNUSED_DAYS * 86_400
    for path in folder.iterdir():
        with suppress(OSError):
            # By the time of last use, which `entry` sets: access times are off on many systems (noatime).
            if path.is_dir() and not path.name.startswith(".") and path.stat().st_mtime < oldest:
                shutil.rmtree(path)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk, so that a power cut cannot leave a name without its content."""
    descriptor = os.open(path, os.O_RDONLY)  # a folder, too, can be opened and synced like this
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
