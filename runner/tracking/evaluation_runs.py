"""An evaluation in MLflow: a run for each of its models, with its metrics and its graded rows, all sent once.

A run is known by the tags `runner.evaluation`, the folder's name, and `runner.model`. The same command finds it again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.record import layout
from runner.request.keys import Request
from runner.tracking import traces
from runner.tracking.client import connect, error_line, experiment, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EVALUATION, MODEL, IDENTITY = "runner.evaluation", "runner.model", "runner.model_identity"
"""Tags of a run: the evaluation's folder, the model as it was named, and what decides its answers."""
KEPT = (layout.EVALUATION, layout.BENCHMARKS, layout.PROBLEMS, layout.ANSWERS, layout.GRADES)
"""Files of an evaluation's folder that each of its runs keeps."""


def write(request: Request, folder: Path) -> str:
    """Write an evaluation's folder to the store that a request names, where it is tracked; return what went wrong.

    What MLflow raises is reported and never costs an evaluation, which is on the disk: the same command sends what is
    missing, and nothing twice.
    """
    if not request.tracking.enabled:
        return ""
    uri = store(request.tracking.uri)
    try:
        _write(connect(uri), request, folder)
    except Exception as error:
        return error_line(error, uri)
    return ""


def _write(client: "MlflowClient", request: Request, folder: Path) -> None:
    found = msgspec.json.decode((folder / layout.EVALUATION).read_bytes())
    to = experiment(client, request.tracking.experiment)
    graded_at = (folder / layout.GRADES).stat().st_mtime
    runs = {
        name: _run(client, to, folder, name, identity)
        for name, identity in zip(found["models"], found["identities"], strict=True)
    }
    for name, run in runs.items():
        _log_metrics(client, run, found["metrics"][name], graded_at)
    ids = {name: str(run.info.run_id) for name, run in runs.items()}
    traces.write_models(client, to, ids, folder, graded_at)
    for run_id in ids.values():
        _log_files(client, run_id, folder)
        client.set_terminated(run_id, "FINISHED")


def _run(client: "MlflowClient", to: str, folder: Path, name: str, identity: str) -> "Run":
    """Return a model's run, found or created."""
    tags = {EVALUATION: folder.name, MODEL: name, IDENTITY: identity}
    tags = {key: value.replace("'", "_") for key, value in tags.items()}  # a search knows no way to quote a quote
    same = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in (EVALUATION, MODEL))
    found = client.search_runs([to], same, max_results=1, order_by=["attributes.start_time ASC"])
    made = found[0] if found else client.create_run(to, tags=tags, run_name=f"evaluation of {name}"[:250])
    if "model" not in made.data.params:
        client.log_param(made.info.run_id, "model", name)
    return made


def _log_metrics(client: "MlflowClient", run: "Run", values: Mapping[str, float], at: float) -> None:
    """Log as `eval/NAME` what the run does not have yet, or has otherwise, graded again."""
    from mlflow.entities import Metric

    metrics = [
        Metric(f"eval/{name}", value, int(at * 1000), 0)
        for name, value in values.items()
        if run.data.metrics.get(f"eval/{name}") != value
    ]
    if metrics:
        client.log_batch(run.info.run_id, metrics=metrics)


def _log_files(client: "MlflowClient", run_id: str, folder: Path) -> None:
    for name in KEPT:
        if (folder / name).exists():
            client.log_artifact(run_id, str(folder / name))
