"""Registered models in MLflow: versions, who holds an alias, how it moved, and what is attached to a version."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from runner.errors import RequestError, ServiceError
from runner.promotion.history import Move
from runner.tracking.client import connect, error_line, is_gone, register, shown
from runner.tracking.folders import folder_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow says of a name, a version or an alias that is not there: the latter for aliases (MLflow 3.17)."""
MOST_NAMES = 1000
"""Registered models that MLflow lists at a time at most."""
Found = TypeVar("Found")


class Version(NamedTuple):
    """A version of a registered model."""

    name: str
    number: str
    run_id: str

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.number}"


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment that callers use for an alias, and the run whose backend knows where it is."""

    name: str
    run_id: str
    models: list[str] = []
    """The models at the service that it has answered with: only from one of these it is moved."""


@contextmanager
def opened(uri: str) -> Iterator["Registry"]:
    """Yield the registry of a store.

    Raises `RequestError` where it is a file that is not there, `ServiceError` in one sentence for whatever it refuses.
    """
    from mlflow.exceptions import MlflowException

    if is_gone(uri):  # to ask it would make an empty one
        raise RequestError(
            f"MLflow: {uri} is not there, where models have their names; give the command in the folder where the runs "
            "were made, or name the store in MLFLOW_TRACKING_URI."
        )

    # Around all of it: MLflow raises wherever it is asked, and a user's sentence is one.
    try:
        yield Registry(connect(uri))
    except (MlflowException, sqlite3.Error, ConnectionError, TimeoutError) as error:
        raise ServiceError(
            f"MLflow: {shown(uri)} refused: {error_line(error, uri)}; nothing else was moved."
        ) from error


class Registry:
    """The registered models of a store."""

    def __init__(self, client: "MlflowClient") -> None:
        self.client = client

    def holder(self, name: str, alias: str) -> Version | None:
        """Return the version that holds an alias, None where none does."""
        return _or_none(lambda: _version(self.client.get_model_version_by_alias(name, alias)))

    def version(self, name: str, number: str) -> Version | None:
        """Return a version by its number, None where there is none."""
        return _or_none(lambda: _version(self.client.get_model_version(name, number)))

    def named_with(self, alias: str) -> list[str]:
        """Return the registered models that have an alias."""
        # One page: nobody has a thousand registered models with the same alias.
        found = self.client.search_registered_models(max_results=MOST_NAMES)
        return [each.name for each in found if alias in each.aliases]

    def has(self, model_id: str) -> bool:
        """Say whether a logged model is in this store."""
        return _or_none(lambda: self.client.get_logged_model(model_id)) is not None

    def register(self, name: str, run_id: str, model_id: str) -> Version:
        """Return a run's version of a registered model, made where there is none."""
        return Version(name, register(self.client, name, run_id, model_id), run_id)

    def folder(self, version: Version, runs: Path) -> Path:
        """Return the folder of a version's run: its own, else a copy of what MLflow has of it.

        Raises `RequestError` where it is no run of the runner's.
        """
        found = folder_of(self.client, self.client.get_run(version.run_id), runs) if version.run_id else None
        if found is None:
            raise RequestError(
                f"{version}: was not made by the runner, so there are no rows to compare with; take the alias from it "
                "in MLflow, or choose another one with as=NAME."
            )
        return found

    def attach(self, version: Version, model_id: str, folder: Path, why: str) -> None:
        """Attach the files of a folder to a version's model, and say in its description why it was promoted."""
        self.client.log_model_artifacts(model_id, str(folder))
        self.client.update_model_version(version.name, version.number, why)

    def moves(self, name: str, alias: str) -> list[Move]:
        """Return the moves of an alias, the first one first."""
        tags = _or_none(lambda: self.client.get_registered_model(name).tags) or {}
        of_alias = sorted(key for key in tags if key.startswith(_moves(alias)))
        return [msgspec.json.decode(tags[key], type=Move) for key in of_alias]

    def move(self, name: str, alias: str, move: Move) -> None:
        """Move an alias and keep the move. Raises `ServiceError` where another process has just moved it."""
        holder = self.holder(name, alias)
        # MLflow has no compare-and-set: this leaves a window of milliseconds instead of minutes.
        if (holder.number if holder else "") != move.instead_of:
            raise ServiceError(
                f"models:/{name}@{alias}: was moved meanwhile, to version {holder.number if holder else 'none'}; give "
                "the same command again, which compares with that one."
            )
        # The number of digits keeps their order; a tag each, since a tag's length is limited.
        number = 1 + len(self.moves(name, alias))
        self.client.set_registered_model_alias(name, alias, move.version)
        self.client.set_registered_model_tag(name, f"{_moves(alias)}{number:06}", msgspec.json.encode(move).decode())

    def deployment(self, name: str, alias: str) -> Deployment | None:
        """Return the deployment that callers use for an alias, if there is one."""
        tags = _or_none(lambda: self.client.get_registered_model(name).tags) or {}
        text = tags.get(_deployment(alias))
        return msgspec.json.decode(text, type=Deployment) if text else None

    def keep_deployment(self, name: str, alias: str, deployment: Deployment | None) -> None:
        """Keep which deployment callers use for an alias; None forgets it."""
        if deployment is None:
            self.client.delete_registered_model_tag(name, _deployment(alias))
        else:
            text = msgspec.json.encode(deployment).decode()
            self.client.set_registered_model_tag(name, _deployment(alias), text)


def _moves(alias: str) -> str:
    return f"runner.moves.{alias}."


def _deployment(alias: str) -> str:
    return f"runner.deployment.{alias}"


def _version(found: "ModelVersion") -> Version:
    return Version(str(found.name), str(found.version), str(found.run_id or ""))


def _or_none(ask: Callable[[], Found]) -> Found | None:
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise
        return None
