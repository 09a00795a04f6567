"""Checkpoints at Tinker: found, listed, deleted, downloaded."""

from collections.abc import Sequence
from pathlib import Path

from runner.backends.tinker.api import ROOT, Api
from runner.errors import ServiceError
from runner.remote.engine.service import Checkpoints, Handle, Save, SessionGone

KINDS = {"state": "weights", "sampler": "sampler_weights", "export": "external_weights"}
"""The part of a checkpoint's path that says what it is for: `tinker://MODEL/KIND/NAME`."""
ROUTES = {"state": "save_weights", "sampler": "save_weights_for_sampler", "export": "save_weights_external"}


class TinkerCheckpoints(Checkpoints):
    """What the service keeps."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def find(self, handle: Handle, save: Save) -> str | None:
        """Return the path of a checkpoint by its name."""
        path = f"tinker://{handle.model}/{KINDS[save.what]}/{save.name}"
        return path if path in self.of(handle) else None

    def of(self, handle: Handle) -> Sequence[str]:
        """Return the paths of a model's checkpoints."""
        found = self._api.get(f"training_runs/{handle.model}/checkpoints").json()
        return [str(each["tinker_path"]) for each in found["checkpoints"]]

    def delete(self, path: str) -> None:
        """Delete a checkpoint."""
        model, _, name = path.removeprefix("tinker://").partition("/")
        # Expired ones are gone by themselves.
        try:
            self._api.http.ask("DELETE", f"{ROOT}/training_runs/{model}/checkpoints/{name}")
        except SessionGone:
            return

    def download(self, path: str, folder: Path) -> None:
        """Put the files of an exported checkpoint into a folder."""
        model, _, name = path.removeprefix("tinker://").partition("/")
        found = self._api.get(f"training_runs/{model}/checkpoints/{name}/external_weights_urls").json()
        for file, url in found["urls"].items():
            # Names come from the network: none may lead out of the folder.
            target = (folder / file).resolve()
            if folder.resolve() not in target.parents:
                raise ServiceError(f"{path}: the service names a file outside the checkpoint; nothing is written.")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._api.http.fetch(str(url)))
