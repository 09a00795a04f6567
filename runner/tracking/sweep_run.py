"""A sweep in MLflow: a parent run that holds its trials' runs together, with the comparison as its page.

Whatever MLflow raises is kept and reported; it never costs a trial. The parent is found again by the sweep's id.
"""

import base64
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from runner.tracking.client import connect, error_line, experiment, store
from runner.tracking.mlflow_runs import SWEEP, in_column
from runner.tracking.sender import PAGE_CHARACTERS, position_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from runner.sweeps import Summary, Sweep


VIEW = "runner"
"""The name of the view of an experiment that its pages' link opens; the latest sweep's."""

DELETED = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""What MLflow answers of a run that was deleted: for now, or for good."""


class Parent:
    """The parent run of a sweep, where it is tracked."""

    def __init__(self, sweep: "Sweep") -> None:
        self.sweep = sweep
        self.request = sweep.request
        self.problem = ""

    def open(self) -> None:
        """Make the parent run, or find it; mark it as running."""
        self._attempt(self._open)

    def close(self, summary: "Summary", code: int) -> str:
        """Name and fold the trials' runs, write the summary, and close the parent; return what went wrong."""
        self._attempt(lambda: self._close(summary, code))
        return self.problem

    def _attempt(self, work: Callable[[], None]) -> None:
        if not self.request.tracking.enabled:
            return
        try:
            work()
            self.problem = ""
        except Exception as error:
            self.problem = error_line(error, store(self.request.tracking.uri))

    def _open(self) -> None:
        client, experiment = self._client()
        run = find(client, experiment, self.sweep.id)
        if run is None:
            tags = {SWEEP: self.sweep.id, "runner.trials": str(len(self.sweep.trials))}
            client.create_run(experiment, tags=tags, run_name=self.sweep.folder.name)
        else:
            client.update_run(run, "RUNNING")

    def _close(self, summary: "Summary", code: int) -> None:
        client, experiment = self._client()
        run = find(client, experiment, self.sweep.id)
        if run is None:
            self._open()
            run = find(client, experiment, self.sweep.id)
        assert run is not None
        self._fold(client, run)
        client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{VIEW}", view(self._columns(summary)))
        link = f"[All trials with these columns](#/experiments/{experiment}/runs?viewStateShareKey={VIEW})"
        client.set_tag(run, "mlflow.note.content", f"{summary.get('page', '')[:PAGE_CHARACTERS]}\n{link}\n")
        for metric, value in self._best(summary).items():
            client.log_metric(run, metric, value)
        for path in sorted(self.sweep.folder.iterdir()):
            client.log_artifact(run, str(path))
        # 130 is Ctrl-C, which is no failure.
        client.set_terminated(run, "KILLED" if code == 130 else "FAILED" if code else "FINISHED")

    def _fold(self, client: "MlflowClient", parent: str) -> None:
        """Name the trials' runs and put them under the parent; one that somebody has deleted there stays so."""
        from mlflow.exceptions import MlflowException

        for child, name in self._children():
            try:
                client.set_tag(child, "mlflow.parentRunId", parent)
                client.update_run(child, name=in_column(name))
            # A trial's run that somebody has deleted stays deleted, and costs no summary.
            except MlflowException as error:
                if error.error_code not in DELETED:
                    raise

    def _children(self) -> Iterator[tuple[str, str]]:
        """Yield the run id and the name of each trial that is in this store."""
        for name, run in self.sweep.runs.items():
            if run_id := position_of(run).run_id:
                yield run_id, name

    def _best(self, summary: "Summary") -> Mapping[str, float]:
        ranked = summary["comparison"]["variants"] if "comparison" in summary else []
        return ranked[0]["metrics"] if ranked else {}

    def _columns(self, summary: "Summary") -> Sequence[str]:
        """Return what one wants to see of trials side by side: what differs first."""
        keys = summary["comparison"]["keys"] if "comparison" in summary else []
        method = self.request.method
        usual = [f"{method}.{key}" for key in ("learning_rate_multiplier", "beta", "n_epochs")]
        params = dict.fromkeys([*keys, *usual, "backend.learning_rate"])
        metrics = [name for name in self._best(summary) if "logps" not in name]
        return [*(f"params.`{key}`" for key in params), *(f"metrics.`{name}`" for name in metrics),
                "attributes.`Models`", "tags.`runner.plan_id`"]  # fmt: skip

    def _client(self) -> tuple["MlflowClient", str]:
        client = connect(store(self.request.tracking.uri))
        return client, experiment(client, self.request.tracking.experiment)


def find(client: "MlflowClient", experiment: str, sweep_id: str) -> str | None:
    """Return the id of a sweep's parent run, if it is there."""
    found = client.search_runs([experiment], f"tags.`{SWEEP}` = '{sweep_id}'", max_results=1)
    return found[0].info.run_id if found else None


def view(columns: Sequence[str]) -> str:
    """Return a view of an experiment's runs with these columns, as MLflow's own page keeps one that is shared.

    Its form is the page's own (seen in MLflow 3.17), and in no documentation: where another version does not know it,
    its page shows the columns that it always shows.
    """
    state = {
        "searchFilter": "", "orderByKey": "attributes.start_time", "orderByAsc": False, "startTime": "ALL",
        "lifecycleFilter": "Active", "datasetsFilter": [], "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns), "runsExpanded": {}, "runsPinned": [], "runsHidden": [],
    }  # fmt: skip
    return "deflate;" + base64.b64encode(zlib.compress(msgspec.json.encode(state))).decode()
