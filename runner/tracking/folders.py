"""Runs that MLflow finds, as folders to compare: their own where they are on this machine, else a copy."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import RequestError
from runner.record import layout, run_folders
from runner.tracking.client import connect, is_gone, shown, store
from runner.tracking.mlflow_runs import PLAN_ID
from runner.tracking.sender import KEPT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

MOST = 50_000
"""Runs that MLflow finds at a time at most."""


def found(name: str, expression: str, runs_folder: Path) -> list[Path]:
    """Return a folder for each run of an experiment that the expression finds: its own in `runs_folder`, else a copy.

    Raises `RequestError` where there is no such experiment, or the expression is none.
    """
    from mlflow.exceptions import MlflowException

    if is_gone(store(None)):  # connecting makes it, with all of its tables
        raise RequestError(f"--experiment: got {name}, but {shown(store(None))} is not there; set MLFLOW_TRACKING_URI.")
    client = connect(store(None))
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        known = ", ".join(sorted(each.name for each in client.search_experiments()))
        raise RequestError(f"--experiment: got {name}; {shown(store(None))} has {known}.")
    try:
        runs = client.search_runs([experiment.experiment_id], expression, max_results=MOST)
    except MlflowException as error:
        raise RequestError(
            f"--filter: got {expression}; {error.message}; write names with / as metrics.`eval/loss`."
        ) from error
    return [folder for run in runs if (folder := folder_of(client, run, runs_folder))]


def folder_of(client: "MlflowClient", run: "MlflowRun", runs_folder: Path) -> Path | None:
    """Return a run's own folder, else a copy of what a comparison reads; None where it is no run of the runner's."""
    if PLAN_ID not in run.data.tags:
        return None
    here = run_folders.of_plan(run.data.tags[PLAN_ID], runs_folder)
    if here:
        return here
    # In a folder of its own, with the run's name: comparisons call a run by its folder.
    folder = Path(tempfile.mkdtemp(prefix="runner-"), str(run.info.run_name).replace("/", "-"))
    folder.mkdir()
    there = {each.path for each in client.list_artifacts(run.info.run_id)}
    for name in (layout.PLAN, *KEPT):  # all that a comparison reads
        if name in there:
            client.download_artifacts(run.info.run_id, name, str(folder))
    return folder
