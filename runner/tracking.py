"""A run in MLflow: what its journal holds beyond what was sent, in batches. follower.py says when.

How far it has come is kept in `tracking.json`, so that a resumed run goes on in the same MLflow run. Sending an
event again does no harm: it carries its own step and time, and the store keeps one of each. What is created
there (run, model, version) is looked for first: a process may have died before it could note that it made it.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from runner import sweeps
from runner.events import Metrics, Samples, StepDone
from runner.journal import Record
from runner.plan import Job

BATCH = 1000
"""Metrics a request: the store's own limit."""
PAGE_CHARACTERS = 7000
"""Length of a run's description: the store cuts tags at 8,000."""
SWEEP = "runner.sweep"
"""The tag of a sweep's parent run, with the sweep's id."""
KEPT = ("report.json", "report.md", "request.json", "journal.jsonl", "evaluation.jsonl", "in_style.jsonl")
"""Files of a run's folder that MLflow keeps as they are when the run ends."""
DATA = ("train", "validation", "validation_fraction", "split_seed", "max_rows")
"""Keys under `dataset` that say which rows are taken."""
STATUSES = {"finished": "FINISHED", "stopped": "KILLED", "pruned": "KILLED", "failed": "FAILED", "running": "RUNNING"}


@dataclass
class Place:
    """Where a run stands in MLflow: how many bytes of its journal have been sent, and what exists there.

    `uri` is without its password, if it has one.
    """

    uri: str
    run_id: str = ""
    experiment_id: str = ""
    model_id: str = ""
    sent_bytes: int = 0
    status: str = ""


def store(uri: str | None) -> str:
    """Return the tracking URI: as asked for, else from the environment, else MLflow's own default."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def shown(uri: str) -> str:
    """Return a URI as it may be written down: without a password."""
    where = urlsplit(uri)
    if where.password is None:
        return uri
    return urlunsplit(where._replace(netloc=f"{where.username}:***@{where.netloc.rpartition('@')[2]}"))


def place_of(job: Job) -> Place:
    """Return where a job stands in the store that it asks for."""
    path, uri = job.folder / "tracking.json", shown(store(job.request.tracking.uri))
    found = Place(**json.loads(path.read_bytes())) if path.exists() else Place(uri)
    return found if found.uri == uri else Place(uri)


class Sender:
    """Sends what a journal holds beyond a place to MLflow, and moves the place."""

    def __init__(self, job: Job, place: Place) -> None:
        import logging

        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # they tell of every table they create
            logging.getLogger(name).setLevel(logging.WARNING)
        self.job, self.place = job, place
        self.client: MlflowClient = MlflowClient(store(job.request.tracking.uri))

    def send(self, status: str = "") -> None:
        """Send new events; with a status also the report, and close the run."""
        if not self.place.run_id:
            self._open()
        elif self.place.status and not status:
            self._reopen()
        records, end = self._new_records()
        self._log_metrics([record for record in records if isinstance(record.event, Metrics)])
        for record in records:
            if isinstance(record.event, Samples):
                self._log_samples(record.event)
            elif isinstance(record.event, StepDone) and record.event.step == "save":
                self._log_model(record.event)
        self._keep(sent_bytes=end)
        if status:
            self._close(status)

    def _reopen(self) -> None:
        self.client.update_run(self.place.run_id, "RUNNING")
        self._keep(status="")

    def _open(self) -> None:
        from mlflow.entities import Param, RunTag

        name = self.job.request.tracking.experiment
        found = self.client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self.client.create_experiment(name)
        tags = self._tags()
        known = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in ("runner.plan_id", "runner.begun"))
        made = self.client.search_runs([experiment], known, max_results=1)
        trial = sweeps.called(self.job)
        called = sweeps.in_column(trial) if trial else self.job.folder.name
        run = made[0] if made else self.client.create_run(experiment, tags=tags, run_name=called)
        params = [Param(key, str(value)[:6000]) for key, value in flat_params(self.job).items()]
        self.client.log_batch(run.info.run_id, params=params, tags=[RunTag(*tag) for tag in tags.items()])
        self._fold(run.info.run_id, experiment)
        self.client.log_inputs(run.info.run_id, datasets=self._datasets())
        self.client.log_text(run.info.run_id, self.job.plan.canonical.decode(), "plan.json")
        self._keep(run_id=run.info.run_id, experiment_id=experiment)

    def _fold(self, run_id: str, experiment: str) -> None:
        """Put a trial's run under its sweep's, as soon as it is there to be seen."""
        sweep = self.job.request.top.sweep
        parents = self.client.search_runs([experiment], f"tags.`{SWEEP}` = '{sweep}'", max_results=1) if sweep else ()
        for parent in parents:
            self.client.set_tag(run_id, "mlflow.parentRunId", parent.info.run_id)

    def _tags(self) -> dict[str, str]:
        begun = msgspec.json.decode(next((self.job.folder / "journal.jsonl").open("rb")), type=Record)
        tags = {
            "runner.plan_id": self.job.plan.id,
            "runner.backend": self.job.plan.backend,
            "runner.begun": f"{begun.time:.6f}",
        }
        commit = git_commit()
        return tags | ({"mlflow.source.git.commit": commit} if commit else {})

    def _datasets(self) -> list[Any]:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        plan, dataset = self.job.plan, self.job.request.dataset
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

    def _new_records(self) -> tuple[list[Record], int]:
        path = self.job.folder / "journal.jsonl"
        data = path.read_bytes() if path.exists() else b""
        end = data.rfind(b"\n") + 1
        decoder = msgspec.json.Decoder(Record)
        return [decoder.decode(line) for line in data[self.place.sent_bytes : end].splitlines()], end

    def _log_metrics(self, records: Sequence[Record]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(record.time * 1000), record.event.at)
            for record in records
            if isinstance(record.event, Metrics)
            for name, value in record.event.values.items()
        ]
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(self.place.run_id, metrics=metrics[start : start + BATCH])

    def _log_samples(self, event: Samples) -> None:
        table = {key: [row[key] for row in event.rows] for key in event.rows[0]}
        self.client.log_table(self.place.run_id, table, "samples.json")

    def _log_model(self, event: StepDone) -> None:
        from mlflow.entities import LoggedModelOutput

        if not self.place.model_id:
            known = f"source_run_id = '{self.place.run_id}'"
            made = self.client.search_logged_models([self.place.experiment_id], known, max_results=1)
            self._keep(model_id=(made[0] if made else self._create_model(event)).model_id)
        if event.result.get("external"):
            self._describe_external(event.result)
        else:
            describe_for_mlflow(Path(event.result["model"]))
            self.client.log_model_artifacts(self.place.model_id, event.result["model"])
        self.client.finalize_logged_model(self.place.model_id, "READY")
        outputs = self.client.get_run(self.place.run_id).outputs
        if self.place.model_id not in [each.model_id for each in (outputs.model_outputs if outputs else ())]:
            self.client.log_outputs(self.place.run_id, [LoggedModelOutput(self.place.model_id, 0)])
        self._register()

    def _create_model(self, event: StepDone) -> Any:
        params = {key: str(value) for key, value in flat_params(self.job).items()}
        tags = {"runner.plan_id": self.job.plan.id, **external_tags(event.result)}
        return self.client.create_logged_model(
            self.place.experiment_id, self.job.folder.name, self.place.run_id, tags, params
        )

    def _describe_external(self, result: Mapping[str, Any]) -> None:
        """Leave the file that lets a model that lives elsewhere be registered, and what is known of it."""
        from mlflow.models.utils import get_external_mlflow_model_spec

        with tempfile.TemporaryDirectory() as folder:
            model = self.client.get_logged_model(self.place.model_id)
            get_external_mlflow_model_spec(model).save(str(Path(folder, "MLmodel")))
            Path(folder, "model.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))
            self.client.log_model_artifacts(self.place.model_id, folder)

    def _register(self) -> None:
        from mlflow.exceptions import MlflowException

        name = self.job.request.tracking.register
        if name:
            try:
                self.client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"models:/{self.place.model_id}"
            if not self.client.search_model_versions(f"name = '{name}' and run_id = '{self.place.run_id}'"):
                self.client.create_model_version(name, source, self.place.run_id, model_id=self.place.model_id)

    def _close(self, status: str) -> None:
        for name in KEPT:
            if (self.job.folder / name).exists():
                self.client.log_artifact(self.place.run_id, str(self.job.folder / name))
        page = (self.job.folder / "report.md").read_text("utf-8")
        self.client.set_tag(self.place.run_id, "mlflow.note.content", page[:PAGE_CHARACTERS])
        if status == "running":
            self.client.update_run(self.place.run_id, STATUSES[status])
        else:
            self.client.set_terminated(self.place.run_id, STATUSES[status])
        self._keep(status=status)

    def _keep(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self.place, name, value)
        draft = self.job.folder / ".tracking.json"
        draft.write_text(json.dumps(asdict(self.place)))
        draft.rename(self.job.folder / "tracking.json")


def external_tags(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of a logged model that lives elsewhere, as `mlflow.create_external_model` does; else none."""
    if not result.get("external"):
        return {}
    return {"mlflow.model.isExternal": "true", "runner.model": result["model"], "runner.job": result["job"]}


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


def _flatten(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(f"{prefix}{key}.", value)
        else:
            yield f"{prefix}{key}", value


def git_commit() -> str:
    """Return the commit checked out in the current folder, or nothing outside a repository."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
    except OSError:
        return ""


def describe_for_mlflow(folder: Path) -> None:
    """Write the `MLmodel` file that lets `mlflow.pyfunc.load_model` load a model reference from its URI alone."""
    from mlflow import pyfunc
    from mlflow.models import Model

    model = Model()
    pyfunc.add_to_model(model, loader_module="runner.pyfunc")
    model.save(str(folder / "MLmodel"))
