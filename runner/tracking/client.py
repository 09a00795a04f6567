"""The MLflow store that a request is tracked in: its address, whether it answers, a client, its errors as a line."""

import logging
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONNECT_SECONDS = 5.0
"""How long a store may take to answer at all."""
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def store(uri: str | None) -> str:
    """Return the tracking URI: as asked for, else from the environment, else MLflow's own default."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def shown(uri: str) -> str:
    """Return a URI as it may be written down: without a password."""
    where = urlsplit(uri)
    if where.password is None:
        return uri
    # The password is never shown, the user is: it distinguishes two stores on one host.
    return urlunsplit(where._replace(netloc=f"{where.username}:***@{where.netloc.rpartition('@')[2]}"))


def connect(uri: str) -> "MlflowClient":
    """Return a client of a store; raises what `demand_answer` raises where there is none."""
    # Without these the client tries a dead server for many minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    # One for each small file of a run is no news.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    demand_answer(uri)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # they log every table they create
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(uri)


def demand_answer(uri: str) -> None:
    """Raise `OSError` or `sqlite3.Error` where nothing answers at a tracking URI.

    MLflow itself tries a dead database again for a quarter of an hour, and must not be cut short once it
    creates tables; so it is asked only where something answers.
    """
    where = urlsplit(uri)
    scheme = where.scheme.partition("+")[0]
    if scheme == "sqlite":
        # Also makes the file, as MLflow would; a folder that is missing or not writable is reported here, in one line.
        with closing(sqlite3.connect(uri.partition("///")[2])) as database:
            database.execute("PRAGMA schema_version")
    elif where.hostname and scheme in PORTS:
        socket.create_connection((where.hostname, where.port or PORTS[scheme]), CONNECT_SECONDS).close()


def is_gone(uri: str) -> bool:
    """Say whether a store is a file that is not there: it was removed, or the command is given in another folder."""
    return uri.startswith("sqlite:///") and not Path(uri.partition("///")[2]).exists()


def experiment(client: "MlflowClient", name: str) -> str:
    """Return an experiment's id; made where there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # Another run has made it in between: four writers of a new experiment at once, one of which was refused.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def register(client: "MlflowClient", name: str, run_id: str, model_id: str) -> str:
    """Return the number of a run's version of a registered model, both made where they are not there yet."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if made:
        return str(made[0].version)
    # not models:/ID, which MLflow 3.17 looks up in the process's default store and not in this client's
    source = client.get_logged_model(model_id).artifact_location
    return str(client.create_model_version(name, source, run_id, model_id=model_id).version)


def error_line(error: Exception, uri: str) -> str:
    """Return an error of the store as a line, with its address, but without a password."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}".replace(uri, shown(uri))
