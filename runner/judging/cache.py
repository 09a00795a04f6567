"""Answers of judges on disk, by the content of the question, so that no judgement is paid for twice.

An answer is on the disk before anybody uses it. Of several threads and processes with the same question one asks, the
others wait for its answer. Entries are small and stay until somebody removes the folder.
"""

import os
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

from runner import cache
from runner.errors import JudgeError
from runner.graders import Json


class Judgement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a judge answered and which tokens were paid; refusals and answers that were cut off are paid for, too."""

    text: str = ""
    finish_reason: str = ""
    refusal: str = ""
    model: str = ""
    """What the endpoint calls the model that answered: often a version of the one that was asked."""
    tool_calls: list[Json] | None = None
    """The tools that a model calls, which was asked with some."""
    input_tokens: int = 0
    output_tokens: int = 0


def folder() -> Path:
    """Return where the judgements of all runs of a user are."""
    return cache.user_folder() / "judgements"


def key(url: str, request: dict[str, Json]) -> str:
    """Return the name of a question's answer: the sha256 of endpoint, model, messages and options."""
    # The names of keys are sorted: the same question is the same in whatever order its options were written.
    content = msgspec.json.encode({"version": 1, "url": url, "request": request}, order="deterministic")
    return sha256(content).hexdigest()


class Judgements:
    """The judgements in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str) -> Judgement | None:
        """Return a question's answer; None where there is none that can be read."""
        try:
            # An entry that cannot be read is asked again: a few cents, instead of an error that nobody can fix.
            return msgspec.json.decode(self._path(name).read_bytes(), type=Judgement)
        except (OSError, msgspec.DecodeError):
            return None

    def get(self, name: str, ask: Callable[[], Judgement], until: float) -> tuple[Judgement, bool]:
        """Return a question's answer, by asking where nobody has asked yet, and whether it was asked now.

        Raises `JudgeError` where another process is still asking when `time.monotonic` is `until`, and whatever `ask`
        raises.
        """
        from filelock import Timeout

        path = self._path(name)
        try:
            with cache.lock(path.parent, name, max(0.0, until - time.monotonic())):
                found = self.find(name)
                # Looked for once more: whoever had the lock before has most likely asked just this.
                answer = found or ask()
                if found is None:
                    self._write(path, answer)
                # Whoever waits for this lock creates it again, and finds the answer.
                (path.parent / f"{name}.lock").unlink(missing_ok=True)
                return answer, found is None
        except Timeout:
            raise JudgeError("another process asks the same, and its answer does not come.") from None

    def _path(self, name: str) -> Path:
        # 256 folders, as large ones are slow to list on some file systems.
        return self._folder / name[:2] / f"{name}.json"

    def _write(self, path: Path, answer: Judgement) -> None:
        draft = path.with_name(f".{path.name}.draft")  # one at a time: the lock is ours
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(answer))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        cache.sync(path.parent)
