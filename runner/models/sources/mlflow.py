"""`models:/…`: a model logged or registered in MLflow, by the URI that MLflow shows.

`/m-ID` is a logged model and never changes; `/NAME@ALIAS` and `/NAME/VERSION` are looked up each time, and a plan names
the logged model that they mean, so that a run and what is made from it stay as they are when the alias moves.
"""

import os
import re
import shutil
import sqlite3
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from runner import cache
from runner.errors import ModelError
from runner.models import model_reference
from runner.models.source import Source
from runner.record import files, layout
from runner.record.outcome import Saved
from runner.tracking import client
from runner.tracking.client import error_line, shown, store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


class Logged(Source):
    """Models logged or registered in MLflow."""

    scheme = "models"

    def pinned(self, rest: str, offline: bool = False) -> str:
        """Return the logged model that a registered name means now; offline what it meant when it was asked for last.

        Raises `ModelError` where there is no such name, version or alias.
        """
        if rest.startswith("/m-"):
            return rest
        if offline:
            found = _last_meaning(rest)
            if found is None:
                raise ModelError(
                    f"model.source: models:{rest} was never asked for on this machine, so a plan cannot know what it "
                    "means; run once, or name the logged model, models:/m-ID."
                )
            return found
        meaning = _meaning(rest)
        _note(rest).parent.mkdir(parents=True, exist_ok=True)
        files.write(_note(rest), meaning.encode())
        return meaning

    def identify(self, rest: str, offline: bool = False) -> str:
        """Return the digest of the logged weights, which have to be fetched for it unless they are here.

        A hosted model has none.
        """
        folder = self._here(rest)
        if folder is None and offline:
            raise ModelError(f"model.source: models:{rest} is not on this machine, so a plan cannot know its digest.")
        folder = folder or self._fetched(rest)
        return "" if _hosted(folder) else model_reference.demand(folder, f"models:{rest}").digest

    def cached(self, rest: str) -> Path | None:
        """Return the folder of a logged model if it was fetched before; what a name means may have changed since."""
        folder = self._here(rest)
        return None if folder is None or _hosted(folder) else folder

    def hosted_name(self, rest: str) -> str | None:
        """Return the name of a hosted model at its service, as far as this machine has asked MLflow for it."""
        folder = self._here(rest)
        return _hosted(folder) if folder else None

    def fetch(self, rest: str) -> Path:
        """Download the model's artifacts from the tracking store and return the folder with its reference."""
        return self._here(rest) or self._fetched(rest)

    def _here(self, rest: str) -> Path | None:
        meaning = _last_meaning(rest)
        folder = _home() / _called(meaning) if meaning else None
        return _model_in(folder) if meaning and meaning.startswith("/m-") and folder and folder.is_dir() else None

    def _fetched(self, rest: str) -> Path:
        """Download what a name means now; a logged model once, safe against a second process."""
        meaning = self.pinned(rest)
        if not meaning.startswith("/m-"):
            # A version that another tool has made may be a version of another store, too: it is fetched each time.
            shutil.rmtree(_home() / _called(meaning), ignore_errors=True)
        return _model_in(cache.entry(_home(), _called(meaning), lambda draft: _download(meaning, draft)))


def _meaning(rest: str) -> str:
    """Ask MLflow for a name; return `/m-ID`, or `/NAME/VERSION` of a version that is no logged model."""
    from mlflow.exceptions import MlflowException

    name, _, alias = rest.strip("/").partition("@")
    name, _, number = name.partition("/")
    if not name or bool(alias) == bool(number):
        raise ModelError(f"model.source: got 'models:{rest}'; allowed: models:/NAME@ALIAS, models:/NAME/VERSION, or "
                         "models:/m-ID.")  # fmt: skip
    uri = store(None)
    # By our own client, which does not try a dead store for minutes.
    try:
        asked = client.connect(uri)
        found: ModelVersion
        if alias:
            found = asked.get_model_version_by_alias(name, alias)
        elif number == "latest":
            found = max(asked.search_model_versions(f"name = '{name}'"), key=lambda each: int(each.version))
        else:
            found = asked.get_model_version(name, number)
    except (MlflowException, sqlite3.Error, OSError, ValueError) as error:
        why = error_line(error, uri).partition(": ")[2]
        raise ModelError(
            f"model.source: MLflow ({shown(uri)}) has no models:{rest}: {why.rstrip('.')}; set MLFLOW_TRACKING_URI to "
            "the store that has it, or name another one."
        ) from error
    # The store gives the id only within the address of the version's files (MLflow 3.17).
    logged = re.search(r"/(m-[0-9a-f]{32})(/|$)", str(found.source))
    # Another tool's version has no such id, and is named by its number.
    return f"/{logged[1]}" if logged else f"/{name}/{found.version}"


def _download(rest: str, to: Path) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        # Where runs are tracked unless the request says otherwise (`tracking.uri`).
        mlflow.artifacts.download_artifacts(f"models:{rest}", dst_path=str(to), tracking_uri=store(None))
    except (MlflowException, OSError) as error:
        raise ModelError(f"model.source: MLflow gave no models:{rest}: {str(error).splitlines()[0]}") from error


def _model_in(folder: Path) -> Path:
    """Return where a download has its reference: MLflow puts a pyfunc's files into a folder of its own below."""
    return next((path.parent for path in folder.rglob(layout.REFERENCE)), folder)


def _hosted(folder: Path) -> str | None:
    found = files.read_json(folder / layout.EXTERNAL, Saved)
    return found["model"].removeprefix("hosted:") if found else None


def _home() -> Path:
    return cache.user_folder() / "mlflow-models"


def _called(rest: str) -> str:
    return sha256(rest.encode()).hexdigest()[:16]


def _note(rest: str) -> Path:
    """Return the file with what a name meant when it was asked for last, in the store of now."""
    return _home() / f"{_called(f'{store(None)} {Path.cwd()} {rest}')}.txt"


def _last_meaning(rest: str) -> str | None:
    if rest.startswith("/m-"):
        return rest
    return _note(rest).read_text("utf-8") if _note(rest).exists() else None


SOURCE = Logged()
