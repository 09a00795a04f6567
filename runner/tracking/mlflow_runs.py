"""The MLflow run of an execution, found or created, with its tags, parameters and data sets.

One execution of a plan is one MLflow run. A local execution is its journal, known by the time of the first record; a
hosted one is the job at the service, whichever folder follows it. So `again=true` makes another MLflow run with
either, and a hosted request given from a second folder continues the first one's.
"""

import json
import re
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from runner.plan import Run, flat_params
from runner.record import layout
from runner.record.journal import Record
from runner.tracking.client import experiment as experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as MlflowRun

PLAN_ID, BEGUN, HOSTED_JOB = "runner.plan_id", "runner.begun", "runner.job"
"""Tags of a run: its plan, the time of its journal's first record, and the id of the job at the service."""
SWEEP = "runner.sweep"
"""The tag of a sweep's parent run, with the sweep's id."""


def find_or_create(client: "MlflowClient", run: Run, hosted_job: str) -> "MlflowRun":
    """Return the MLflow run of an execution; `hosted_job` is the id of the job at the service, empty if there is none.

    What a run that is found has already stays as it is: from another folder, paths among the parameters may differ.
    """
    from mlflow.entities import Param, RunTag

    experiment = experiment_id(client, run.request.tracking.experiment)
    # Looked for first, by tags: a process may have been killed after it made the run, before it could note its id.
    tags = _tags(run) | ({HOSTED_JOB: hosted_job} if hosted_job else {})
    trial = run.trial_name
    called = in_column(trial) if trial else run.folder.name
    mlflow_run = _find(client, experiment, tags) or client.create_run(experiment, tags=tags, run_name=called)
    params = [
        # The store's limit is 6,000 characters (mlflow.utils.validation.MAX_PARAM_VAL_LENGTH).
        Param(key, str(value)[:6000])
        for key, value in flat_params(run).items()
        if key not in mlflow_run.data.params
    ]
    missing = [RunTag(key, value) for key, value in tags.items() if key not in mlflow_run.data.tags]
    client.log_batch(mlflow_run.info.run_id, params=params, tags=missing)
    _fold(client, mlflow_run, run.request.sweep)
    if not mlflow_run.inputs or not mlflow_run.inputs.dataset_inputs:
        client.log_inputs(mlflow_run.info.run_id, datasets=_datasets(run))
    client.log_text(mlflow_run.info.run_id, run.plan.canonical.decode(), layout.PLAN)
    return mlflow_run


def steps(client: "MlflowClient", mlflow_run: "MlflowRun") -> dict[str, str]:
    """Return the steps for which a run has each metric: a bit each, in hexadecimal."""
    histories = {name: client.get_metric_history(mlflow_run.info.run_id, name) for name in mlflow_run.data.metrics}
    return {name: f"{sum({1 << each.step for each in history}):x}" for name, history in histories.items()}


def begun(run: Run) -> str:
    """Return the time of the first record of a run's journal, as the tag has it."""
    with (run.folder / layout.JOURNAL).open("rb") as file:
        return f"{msgspec.json.decode(next(file), type=Record).time:.6f}"


def in_column(trial: str) -> str:
    """Return a trial's name as it is recognised in a narrow column, its values first: `0.5, 1 · beta, seed`."""
    parts = [part.partition("=") for part in re.split(r", (?=[+~]*[\w./@]+=)", trial)]
    if not all(value for _, _, value in parts):
        return trial
    keys = [key.lstrip("+~").rpartition(".")[2] for key, _, _ in parts]
    return f"{', '.join(value for _, _, value in parts)} · {', '.join(keys)}"


def git_commit() -> str:
    """Return the commit checked out in the current folder, or nothing outside a repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
    except OSError:
        return ""


def _find(client: "MlflowClient", experiment: str, tags: Mapping[str, str]) -> "MlflowRun | None":
    """Return the first MLflow run of the same hosted job, else that of the same journal; None where there is none."""
    for key in (HOSTED_JOB, BEGUN):
        if key in tags:
            same = " and ".join(f"tags.`{each}` = '{tags[each]}'" for each in (PLAN_ID, key))
            # Two folders may have made one each before they could see the other's: both continue with the same.
            oldest = ["attributes.start_time ASC"]
            if found := client.search_runs([experiment], same, max_results=1, order_by=oldest):
                return found[0]
    return None


def _fold(client: "MlflowClient", mlflow_run: "MlflowRun", sweep: str | None) -> None:
    """Put a trial's run under its sweep's, as soon as it is there to be seen."""
    known = f"tags.`{SWEEP}` = '{sweep}'"
    for parent in client.search_runs([mlflow_run.info.experiment_id], known, max_results=1) if sweep else ():
        client.set_tag(mlflow_run.info.run_id, "mlflow.parentRunId", parent.info.run_id)


def _tags(run: Run) -> dict[str, str]:
    tags = {PLAN_ID: run.plan.id, "runner.backend": run.plan.backend, BEGUN: begun(run)}
    commit = git_commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _datasets(run: Run) -> list["DatasetInput"]:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    plan, dataset = run.plan, run.request.dataset
    splits = [
        ("train", plan.train, dataset.train),
        ("validation", plan.validation, dataset.validation or dataset.train),
    ]
    return [
        DatasetInput(
            Dataset(
                name=f"{split}: {source if isinstance(source, str) else ', '.join(source)}"[:500],
                digest=identity.fingerprint[:36],
                source_type="local",
                source=json.dumps({"uri": source}),
                profile=json.dumps({"num_rows": identity.rows}),
            ),
            [InputTag("mlflow.data.context", split)],
        )
        for split, identity, source in splits
        if identity
    ]
