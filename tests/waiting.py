"""Waiting that has an end, and says what it waited for."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

SECONDS = 240
"""The longest that anything may take on a busy machine."""


def until(
    condition: Callable[[], Any],
    what: str,
    *,
    process: subprocess.Popen[Any] | None = None,
    seconds: float = SECONDS,
) -> None:
    """Wait until a condition holds.

    Raises `AssertionError` that names `what` after so many seconds, or where the process that is to bring it has ended.
    """
    give_up = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"no {what}: the process ended with {process.returncode}{written(process)}")
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(0.03)


def written(process: subprocess.Popen[Any]) -> str:
    """Return what a process that has ended wrote into its pipes, where it has any."""
    if process.stdout is None and process.stderr is None:
        return ""
    return ": " + "\n".join(str(each) for each in process.communicate(timeout=10) if each)
