"""A run in MLflow: what its journal holds beyond what was sent, in batches. follower.py says when.

How far it has come is kept in `tracking.json`, so that a resumed run continues the same MLflow run. Sending an
event again does no harm: it carries its own step and time, and the store keeps one of each. What is created
there (run, model, version) is looked for first: a process may have died before it could note that it made it.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner import backends, cache
from runner.plan import Run, flat_params
from runner.record import layout
from runner.record.events import Graded, Metrics, Samples, StepDone
from runner.record.files import write, write_json
from runner.record.journal import Record, read_state
from runner.record.outcome import Saved, saved
from runner.tracking import answer_table, mlflow_runs, traces
from runner.tracking.client import connect, register, shown, store
from runner.tracking.mlflow_runs import HOSTED_JOB, PLAN_ID

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as MlflowRun

BATCH = 1000
"""Metrics per request: the store's own limit."""
PAGE_CHARACTERS = 7000
"""Length of a run's description: the store cuts tags at 8,000."""
CLAIM_SECONDS = 10.0
"""How long another process of this machine may take to find or create the MLflow run of the same plan."""
KEPT = (
    layout.REPORT, layout.REPORT_PAGE, layout.REPORT_HTML, layout.REQUEST, layout.JOURNAL, layout.HELD_OUT,
    layout.IN_STYLE, layout.PROBLEMS, layout.ANSWERS, layout.GRADES,
)  # fmt: skip
"""Files of a run's folder that MLflow keeps as they are when the run ends."""
STATUSES = {"finished": "FINISHED", "stopped": "KILLED", "pruned": "KILLED", "failed": "FAILED", "running": "RUNNING"}


@dataclass
class Position:
    """The position of a run in MLflow: how many bytes of its journal have been sent, and what exists there.

    `uri` is without its password, if it has one. `hosted_job` is the id of the job at the service, once it is known.
    `taken_over` is the MLflow status that another folder's run had when this one began to send to it, and `known` the
    steps for which it had each metric: a bit each, in hexadecimal.
    """

    uri: str
    run_id: str = ""
    experiment_id: str = ""
    model_id: str = ""
    sent_bytes: int = 0
    status: str = ""
    hosted_job: str = ""
    taken_over: str = ""
    known: dict[str, str] = field(default_factory=dict)


def position_of(run: Run) -> Position:
    """Return the position of a run in the store that it asks for."""
    path, uri = run.folder / layout.TRACKING, shown(store(run.request.tracking.uri))
    found = Position(**json.loads(path.read_bytes())) if path.exists() else Position(uri)
    return found if found.uri == uri else Position(uri)


class Sender:
    """Sends what a journal holds beyond a position to MLflow, and moves the position.

    Raises what `client.demand_answer` raises where no store answers.
    """

    def __init__(self, run: Run, position: Position) -> None:
        self.run, self.position = run, position
        self.client = connect(store(run.request.tracking.uri))

    def send(self, status: str = "") -> None:
        """Send new events; with a status also the report, and close the run.

        A hosted run without a status waits for its job: only the job says which MLflow run it is.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._send(status)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST" or not self.position.run_id:
                raise
            # Another store at the same address, as sqlite:///mlflow.db is in another folder: it gets all of the run.
            self._keep(**asdict(Position(self.position.uri)))
            self._send(status)

    def _send(self, status: str) -> None:
        if not self._open(status):
            return
        records, end = new_records(self.run.folder / layout.JOURNAL, self.position.sent_bytes)
        self._log_metrics([record for record in records if isinstance(record.event, Metrics)])
        for record in records:
            if isinstance(record.event, Samples):
                write_samples(self.client, self.position.run_id, record.event)
            elif isinstance(record.event, Graded):
                answer_table.write(self.client, self.position.run_id, self.run.folder, record.event)
            elif isinstance(record.event, StepDone) and record.event.step == "save":
                self._log_model(record.event)
            elif isinstance(record.event, StepDone) and record.event.step == "grade":
                to = self.position
                traces.write(
                    self.client, to.experiment_id, to.run_id, self.run.folder, record.time,
                    with_base=self.run.request.sweep is None,
                )  # fmt: skip
        # Only after all of it was taken: what is sent twice does no harm, what is skipped would be missing for good.
        self._keep(sent_bytes=end)
        if status:
            self._close(status)

    def _open(self, status: str) -> bool:
        """Find or create the MLflow run, or reopen it; return whether there is one to send to."""
        hosted, hosted_job = backends.load(self.run.plan.backend).hosted, self.position.hosted_job
        # The job is what its MLflow run is known by: before it exists nobody knows which run to send to.
        if hosted and not hosted_job:
            hosted_job = read_state(self.run.folder).job
            if not hosted_job and not status:
                return False
        if not self.position.run_id or hosted_job != self.position.hosted_job:
            # two folders may follow one job at the same time
            with cache.lock(cache.user_folder() / "claims", f"mlflow-{self.run.plan.id}", CLAIM_SECONDS):
                self._take(mlflow_runs.find_or_create(self.client, self.run, hosted_job), hosted_job)
        if not status:
            self._reopen()
        return True

    def _take(self, mlflow_run: "MlflowRun", hosted_job: str) -> None:
        """Send to an MLflow run from now on; what another folder has sent there is not sent again."""
        changes: dict[str, object] = {"hosted_job": hosted_job}
        if mlflow_run.info.run_id != self.position.run_id:
            changes |= {"run_id": mlflow_run.info.run_id, "experiment_id": mlflow_run.info.experiment_id}
            changes |= {"model_id": "", "sent_bytes": 0}
            # Another folder's process began it: what it has sent is asked for once, instead of being sent again.
            if mlflow_run.data.tags[mlflow_runs.BEGUN] != mlflow_runs.begun(self.run):
                changes |= {"taken_over": mlflow_run.info.status, "known": mlflow_runs.steps(self.client, mlflow_run)}
        self._keep(**changes)

    def _reopen(self) -> None:
        """Mark the run as running again; one that another folder has finished stays so."""
        if self.position.taken_over != "FINISHED" and (self.position.status or self.position.taken_over):
            self.client.update_run(self.position.run_id, "RUNNING")
            self._keep(status="", taken_over="")

    def _log_metrics(self, records: Sequence[Record]) -> None:
        from mlflow.entities import Metric

        known = {name: int(steps, 16) for name, steps in self.position.known.items()}
        metrics = [
            Metric(name, value, int(record.time * 1000), record.event.step)
            for record in records
            if isinstance(record.event, Metrics)
            for name, value in record.event.values.items()
            if not known.get(name, 0) >> record.event.step & 1
        ]
        # MLflow refuses a larger batch (mlflow.utils.validation.MAX_METRICS_PER_BATCH).
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(self.position.run_id, metrics=metrics[start : start + BATCH])

    def _log_model(self, event: StepDone) -> None:
        from mlflow.entities import LoggedModelOutput

        if not self.position.model_id:
            known = f"source_run_id = '{self.position.run_id}'"
            made = self.client.search_logged_models([self.position.experiment_id], known, max_results=1)
            self._keep(model_id=(made[0] if made else self._create_model(event)).model_id)
        model = saved(event.result)
        if model.get("external"):
            describe_external(self.client, self.position.model_id, model)
        else:
            describe_for_mlflow(Path(model["model"]))
            self.client.log_model_artifacts(self.position.model_id, model["model"])
        self.client.finalize_logged_model(self.position.model_id, "READY")
        outputs = self.client.get_run(self.position.run_id).outputs
        # Sent twice, the model would be twice among the run's outputs.
        if self.position.model_id not in [each.model_id for each in (outputs.model_outputs if outputs else ())]:
            self.client.log_outputs(self.position.run_id, [LoggedModelOutput(self.position.model_id, 0)])
        if name := self.run.request.tracking.register:
            register(self.client, name, self.position.run_id, self.position.model_id)

    def _create_model(self, event: StepDone) -> "LoggedModel":
        params = {key: str(value) for key, value in flat_params(self.run).items()}
        tags = {PLAN_ID: self.run.plan.id, **external_tags(saved(event.result))}
        return self.client.create_logged_model(
            self.position.experiment_id, self.run.folder.name, self.position.run_id, tags, params
        )

    def _close(self, status: str) -> None:
        if self.position.taken_over == "FINISHED" and status != "finished":
            self._keep(status=status)  # the report of the folder that has finished it stays
            return
        for name in KEPT:
            if (self.run.folder / name).exists():
                self.client.log_artifact(self.position.run_id, str(self.run.folder / name))
        page = (self.run.folder / layout.REPORT_PAGE).read_text("utf-8")
        self.client.set_tag(self.position.run_id, "mlflow.note.content", page[:PAGE_CHARACTERS])
        # `set_terminated` would give it an end; a hosted job that still runs has none.
        if status == "running":
            self.client.update_run(self.position.run_id, STATUSES[status])
        else:
            self.client.set_terminated(self.position.run_id, STATUSES[status])
        self._keep(status=status, taken_over="")

    def _keep(self, **changes: object) -> None:
        for name, value in changes.items():
            setattr(self.position, name, value)
        # Whole or not at all: a torn position would begin another MLflow run.
        write(self.run.folder / layout.TRACKING, json.dumps(asdict(self.position)).encode())


def write_samples(client: "MlflowClient", run_id: str, event: Samples) -> None:
    """Leave samples as a table; those that were sent before are replaced."""
    names = list(event.rows[0])
    # MLflow appends to a table that is there; the last samples are those of the report.
    if layout.SAMPLES in [each.path for each in client.list_artifacts(run_id)]:
        rows = [[row[name] for name in names] for row in event.rows]
        client.log_dict(run_id, {"columns": names, "data": rows}, layout.SAMPLES)
    else:
        client.log_table(run_id, {name: [row[name] for row in event.rows] for name in names}, layout.SAMPLES)


def new_records(path: Path, sent_bytes: int) -> tuple[list[Record], int]:
    """Return the whole records of a journal beyond so many bytes, and where they end."""
    data = path.read_bytes() if path.exists() else b""
    # The process that writes may be in the middle of a line.
    end = data.rfind(b"\n") + 1
    decoder = msgspec.json.Decoder(Record)
    return [decoder.decode(line) for line in data[sent_bytes:end].splitlines()], end


def external_tags(result: Saved) -> dict[str, str]:
    """Return the tags of a logged model that lives elsewhere, as `mlflow.create_external_model` does; else none."""
    if not result.get("external"):
        return {}
    return {"mlflow.model.isExternal": "true", "runner.model": result["model"], HOSTED_JOB: result["job"]}


def describe_external(client: "MlflowClient", model_id: str, result: Saved) -> None:
    """Leave the file that lets a model that lives elsewhere be registered, and what is known of it."""
    from mlflow.models.utils import get_external_mlflow_model_spec

    with tempfile.TemporaryDirectory() as folder:
        get_external_mlflow_model_spec(client.get_logged_model(model_id)).save(str(Path(folder, "MLmodel")))
        write_json(Path(folder, layout.EXTERNAL), result)
        client.log_model_artifacts(model_id, folder)


def describe_for_mlflow(folder: Path) -> None:
    """Write the `MLmodel` file that lets `mlflow.pyfunc.load_model` load a model reference from its URI alone."""
    from mlflow import pyfunc
    from mlflow.models import Model

    model = Model()
    pyfunc.add_to_model(model, loader_module="runner.pyfunc")
    model.save(str(folder / "MLmodel"))
