"""The MLflow store that a request is tracked in: asked only where something answers, and its errors told in a line."""

import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import RequestError
from runner.record import layout, run_folders
from runner.request.keys import Request
from runner.tracking.follower import demand_answer
from runner.tracking.sender import KEPT, shown, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

MOST = 50_000
"""Runs that MLflow finds at a time at most."""


def connect(request: Request) -> "MlflowClient":
    """Return a client of the store; raises what `demand_answer` raises where there is none."""
    return _client(store(request.tracking.uri))


def experiment(client: "MlflowClient", name: str) -> str:
    """Return an experiment's id; made where there is none."""
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def told(error: Exception, request: Request) -> str:
    """Return an error of the store as a line without a password."""
    uri = store(request.tracking.uri)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}".replace(uri, shown(uri))


def folders(name: str, expression: str, runs_folder: Path) -> list[Path]:
    """Return a folder for each run of an experiment that the expression finds: its own in `runs_folder`, else a copy.

    Raises `RequestError` where there is no such experiment, or the expression is none.
    """
    from mlflow.exceptions import MlflowException

    client = _client(store(None))
    found = client.get_experiment_by_name(name)
    if found is None:
        known = ", ".join(sorted(each.name for each in client.search_experiments()))
        raise RequestError(f"--experiment: got {name}; {shown(store(None))} has {known}.")
    try:
        runs = client.search_runs([found.experiment_id], expression, max_results=MOST)
    except MlflowException as error:
        raise RequestError(
            f"--filter: got {expression}; {error.message}; write names with / as metrics.`eval/loss`."
        ) from error
    return [_folder(client, run, runs_folder) for run in runs if "runner.plan_id" in run.data.tags]


def _folder(client: "MlflowClient", run: "MlflowRun", runs_folder: Path) -> Path:
    here = run_folders.of_plan(run.data.tags["runner.plan_id"], runs_folder)
    if here:
        return here
    folder = Path(tempfile.mkdtemp(prefix="runner-"), str(run.info.run_name).replace("/", "-"))
    folder.mkdir()
    there = {each.path for each in client.list_artifacts(run.info.run_id)}
    for name in (layout.PLAN, *KEPT):  # all that a comparison reads
        if name in there:
            client.download_artifacts(run.info.run_id, name, str(folder))
    return folder


def _client(uri: str) -> "MlflowClient":
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    demand_answer(uri)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # they tell of every table they create
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(uri)
