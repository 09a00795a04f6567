"""Checkpoints of Foundry's sessions: found and listed by their session, deleted with it; none can be downloaded."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from runner.backends.foundry_sessions.api import Api
from runner.errors import ServiceError
from runner.remote.engine.service import Checkpoints, Handle, Save, SessionGone

TYPES = {"training": "weights", "sampler": "sampler"}
"""The part of a checkpoint's path that says what it is for. The service has no path for a sampler's: that is ours."""
KINDS = {"state": "weights", "sampler": "sampler"}


class _Checkpoint(msgspec.Struct):
    checkpoint_id: str
    checkpoint_type: str


class _Listed(msgspec.Struct):
    checkpoints: list[_Checkpoint]


class SessionCheckpoints(Checkpoints):
    """What the service keeps."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def find(self, handle: Handle, save: Save) -> str | None:
        """Return the path of a checkpoint by its name."""
        path = f"loom://{handle.session}/{KINDS[save.what]}/{save.name}"
        return path if path in self.of(handle) else None

    def of(self, handle: Handle) -> Sequence[str]:
        """Return the paths of a session's checkpoints; none where it was deleted with them."""
        try:
            content = self._api.ask("GET", f"/{handle.session}/checkpoints").content
        except SessionGone:
            return []
        found = msgspec.json.decode(content, type=_Listed).checkpoints
        return [f"loom://{handle.session}/{TYPES[each.checkpoint_type]}/{each.checkpoint_id}" for each in found]

    def delete(self, path: str) -> None:
        """Delete the session of a checkpoint with all that it has saved: the service deletes nothing less."""
        try:
            self._api.ask("DELETE", f"/{split(path)[0]}")
        except SessionGone:
            return

    def download(self, path: str, folder: Path) -> None:
        """Raise `ServiceError`: the service gives no weights away."""
        raise ServiceError(f"{path}: Foundry's sessions give no weights away.")


def split(path: str) -> tuple[str, str]:
    """Return the session and the name of a checkpoint. Raises `ServiceError` where a path is none."""
    found = re.fullmatch(r"(?:loom://)?(session_[\w-]+)/(?:weights/|sampler/)?([\w-]{1,255})", path)
    if found is None:
        raise ServiceError(
            f"{path}: no checkpoint of a session; allowed: session_ID/NAME, loom://session_ID/weights/NAME."
        )
    return found[1], found[2]
