"""The MLflow run of an execution, found or created, with its tags, parameters and data sets.

One execution of a plan is one MLflow run. A local execution is its journal, known by the time of the first record; a
hosted one is the job at the service, whichever folder follows it. So `again=true` makes another MLflow run with
either, and a hosted request given from a second folder continues the first one's.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from runner import sweeps
from runner.journal import Record
from runner.plan import Job

if TYPE_CHECKING:
    from mlflow import MlflowClient

PLAN_ID, BEGUN, HOSTED_JOB = "runner.plan_id", "runner.begun", "runner.job"
"""Tags of a run: its plan, the time of its journal's first record, and the id of the job at the service."""
SWEEP = "runner.sweep"
"""The tag of a sweep's parent run, with the sweep's id."""
DATA = ("train", "validation", "validation_fraction", "split_seed", "max_rows")
"""Keys under `dataset` that say which rows are taken."""


def find_or_create(client: "MlflowClient", job: Job, hosted_job: str) -> Any:
    """Return the MLflow run of an execution; `hosted_job` is the id of the job at the service, empty if there is none.

    What a run that is found has already stays as it is: from another folder, paths among the parameters may differ.
    """
    from mlflow.entities import Param, RunTag

    name = job.request.tracking.experiment
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    tags = _tags(job) | ({HOSTED_JOB: hosted_job} if hosted_job else {})
    trial = sweeps.called(job)
    called = sweeps.in_column(trial) if trial else job.folder.name
    run = _find(client, experiment, tags) or client.create_run(experiment, tags=tags, run_name=called)
    params = [Param(key, str(value)[:6000]) for key, value in flat_params(job).items() if key not in run.data.params]
    missing = [RunTag(key, value) for key, value in tags.items() if key not in run.data.tags]
    client.log_batch(run.info.run_id, params=params, tags=missing)
    _fold(client, run, job.request.top.sweep)
    if not run.inputs or not run.inputs.dataset_inputs:
        client.log_inputs(run.info.run_id, datasets=_datasets(job))
    client.log_text(run.info.run_id, job.plan.canonical.decode(), "plan.json")
    return run


def steps(client: "MlflowClient", run: Any) -> dict[str, str]:
    """Return the steps for which a run has each metric: a bit each, in hexadecimal."""
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    return {name: f"{sum({1 << each.step for each in history}):x}" for name, history in histories.items()}


def begun(job: Job) -> str:
    """Return the time of the first record of a job's journal, as the tag has it."""
    with (job.folder / "journal.jsonl").open("rb") as file:
        return f"{msgspec.json.decode(next(file), type=Record).time:.6f}"


def flat_params(job: Job) -> dict[str, Any]:
    """Return the resolved plan by the keys people type: `dpo.n_epochs`, `backend.lora.rank`, `model.source`."""
    plan, dataset = job.plan, job.request.dataset
    nested = {
        "method": plan.method,
        plan.method: plan.hyperparameters,
        "backend": {"name": plan.backend, **plan.settings},
        "model": {"source": plan.model.source, "digest": plan.model.digest},
        "dataset": {key: getattr(dataset, key) for key in DATA},
        "evaluation": plan.evaluation,
        "seed": plan.seed,
    }
    return dict(_flatten("", nested))


def git_commit() -> str:
    """Return the commit checked out in the current folder, or nothing outside a repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
    except OSError:
        return ""


def _find(client: "MlflowClient", experiment: str, tags: Mapping[str, str]) -> Any:
    """Return the first MLflow run of the same hosted job, else that of the same journal; None where there is none."""
    for key in (HOSTED_JOB, BEGUN):
        if key in tags:
            same = " and ".join(f"tags.`{each}` = '{tags[each]}'" for each in (PLAN_ID, key))
            oldest = ["attributes.start_time ASC"]
            if found := client.search_runs([experiment], same, max_results=1, order_by=oldest):
                return found[0]
    return None


def _fold(client: "MlflowClient", run: Any, sweep: str | None) -> None:
    """Put a trial's run under its sweep's, as soon as it is there to be seen."""
    known = f"tags.`{SWEEP}` = '{sweep}'"
    for parent in client.search_runs([run.info.experiment_id], known, max_results=1) if sweep else ():
        client.set_tag(run.info.run_id, "mlflow.parentRunId", parent.info.run_id)


def _tags(job: Job) -> dict[str, str]:
    tags = {PLAN_ID: job.plan.id, "runner.backend": job.plan.backend, BEGUN: begun(job)}
    commit = git_commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _datasets(job: Job) -> list[Any]:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    plan, dataset = job.plan, job.request.dataset
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


def _flatten(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value
