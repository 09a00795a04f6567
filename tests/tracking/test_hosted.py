"""A hosted job is one MLflow run, whichever folder follows it; another job of the same plan is another run."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("azure.ai.projects")

from runner import plan
from runner.errors import RunnerError
from runner.execution import execute
from runner.execution.pipeline import run_and_report
from runner.record.events import StepDone
from runner.record.journal import Record
from runner.tracking.follower import Follower
from runner.tracking.mlflow_runs import BEGUN, HOSTED_JOB
from runner.tracking.sender import Sender, position_of
from tests.emulator import Emulator, Script
from tests.hosted.rehearsal import created_once, planned

pytestmark = pytest.mark.slow


class Store(NamedTuple):
    """An MLflow store, and an experiment in it for one test: creating the tables takes seconds."""

    uri: str
    experiment: str

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    def runs(self) -> list[Any]:
        """Return the runs of the experiment, oldest first."""
        found = self.client.get_experiment_by_name(self.experiment)
        runs: list[Any] = self.client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])
        return runs

    def metrics(self, run: Any) -> Counter[tuple[str, int]]:
        """Return how often a run has each metric at each step."""
        client = self.client
        return Counter(
            (name, each.step) for name in run.data.metrics for each in client.get_metric_history(run.info.run_id, name)
        )


@pytest.fixture
def store(database: str, tmp_path: Path) -> Store:
    return Store(database, tmp_path.name)


def tracked(data: Path, runs: Path, store: Store, *more: str) -> plan.Run:
    where = [f"tracking.uri={store.uri}", f"tracking.experiment={store.experiment}"]
    return planned(data, runs, "tracking.enabled=true", *where, *more)


def moved(data: Path, to: Path) -> Path:
    """Return a second folder with the same data: the paths among a run's parameters are others."""
    to.mkdir()
    for path in data.glob("*.jsonl"):
        shutil.copy(path, to)
    return to


def test_a_finished_hosted_run_given_from_another_folder_is_the_same_mlflow_run(
    cloud: Emulator, tmp_path: Path, store: Store
) -> None:
    first = tracked(tmp_path, tmp_path / "runs", store, "tracking.register=house")
    run_and_report(first)
    (before,) = store.runs()
    metrics = store.metrics(before)
    assert set(metrics.values()) == {1}
    elsewhere = moved(tmp_path, tmp_path / "elsewhere")
    second = tracked(elsewhere, elsewhere / "runs", store, "tracking.register=house")
    assert second.plan.id == first.plan.id
    cloud.created_jobs[0].script.results = "missing"
    run_and_report(second)
    shutil.rmtree(first.folder)
    run_and_report(first)
    (after,) = store.runs()
    assert created_once(cloud)
    assert after.info.run_id == before.info.run_id == position_of(second).run_id == position_of(first).run_id
    assert after.info.status == "FINISHED"
    assert after.data.params == before.data.params
    assert store.metrics(after) == metrics
    assert len(after.inputs.dataset_inputs) == 2
    client = store.client
    assert len(client.search_logged_models([after.info.experiment_id])) == 1
    assert len(client.search_model_versions("name = 'house'")) == 1


def test_a_job_left_running_is_continued_in_its_mlflow_run_from_another_folder(
    cloud: Emulator, tmp_path: Path, store: Store
) -> None:
    first = tracked(tmp_path, tmp_path / "runs", store, "backend.follow=false")
    run_and_report(first)
    (begun,) = store.runs()
    assert begun.info.status == "RUNNING"
    second = tracked(tmp_path, tmp_path / "more", store)
    run_and_report(second)
    (ended,) = store.runs()
    assert (ended.info.run_id, ended.info.status) == (begun.info.run_id, "FINISHED")
    assert ended.data.tags[BEGUN] == begun.data.tags[BEGUN]
    other = Store(store.uri, f"{store.experiment}-alone")
    run_and_report(tracked(tmp_path, tmp_path / "alone", other))
    (alone,) = other.runs()
    assert store.metrics(ended) == store.metrics(alone)


def test_what_the_first_folder_sent_is_not_sent_again_where_the_service_reports_it_at_other_times(
    cloud: Emulator, tmp_path: Path, store: Store
) -> None:
    first = tracked(tmp_path, tmp_path / "runs", store)
    run_and_report(first)
    (before,) = store.runs()
    metrics = store.metrics(before)
    cloud.advance(3600)
    (job,) = cloud.created_jobs
    job.script.running_seconds += 1800
    run_and_report(tracked(tmp_path, tmp_path / "more", store))
    (after,) = store.runs()
    assert store.metrics(after) == metrics


def test_a_new_job_of_the_same_plan_has_its_own_mlflow_run(cloud: Emulator, tmp_path: Path, store: Store) -> None:
    first = tracked(tmp_path, tmp_path / "runs", store)
    run_and_report(first)
    execute.set_aside(first.folder)
    run_and_report(tracked(tmp_path, tmp_path / "runs", store, "again=true"))
    one, other = store.runs()
    assert [each.id for each in cloud.created_jobs] == [each.data.tags[HOSTED_JOB] for each in (one, other)]
    assert store.metrics(one).keys() == store.metrics(other).keys()


def test_a_run_that_failed_before_its_job_existed_moves_to_the_run_of_that_job(
    cloud: Emulator, tmp_path: Path, store: Store
) -> None:
    first = tracked(tmp_path, tmp_path / "runs", store)
    held_out = (tmp_path / "held_out.jsonl").read_bytes()
    (tmp_path / "held_out.jsonl").write_bytes(held_out + held_out)
    with pytest.raises(RunnerError):
        run_and_report(first)
    (tmp_path / "held_out.jsonl").write_bytes(held_out)
    run_and_report(tracked(tmp_path, tmp_path / "more", store))
    run_and_report(first)
    failed, finished = store.runs()
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")
    assert position_of(first).run_id == finished.info.run_id
    assert HOSTED_JOB not in failed.data.tags


def test_an_interrupted_look_at_a_finished_run_leaves_it_finished(
    cloud: Emulator, tmp_path: Path, store: Store
) -> None:
    run_and_report(tracked(tmp_path, tmp_path / "runs", store))
    (before,) = store.runs()
    second = tracked(tmp_path, tmp_path / "more", store, "backend.follow=false")
    run_and_report(second)
    (after,) = store.runs()
    assert after.info.status == "FINISHED"
    assert after.data.tags["mlflow.note.content"] == before.data.tags["mlflow.note.content"]
    run_and_report(
        replace(second, request=replace(second.request, backend=replace(second.request.backend, follow=True)))
    )
    assert [each.info.status for each in store.runs()] == ["FINISHED"]


def test_no_mlflow_run_is_opened_before_the_job_is_known(cloud: Emulator, tmp_path: Path, store: Store) -> None:
    cloud.script = Script(running_seconds=3600)
    run = tracked(tmp_path, tmp_path / "runs", store, "backend.follow=false")
    opened: dict[str, bool] = {}

    def look(record: Record) -> None:
        if isinstance(record.event, StepDone):
            Sender(run, position_of(run)).send()
            opened[record.event.step] = bool(position_of(run).run_id)

    with execute.alone(run.folder):
        execute.execute(run, look)
    assert opened == {"upload": False, "create": True, "look": True}
    follower = Follower([run])
    (run.folder / "report.md").write_text("", "utf-8")
    follower.finish(run, "running")
    follower.end()
    (opened_once,) = store.runs()
    assert opened_once.data.tags[HOSTED_JOB] == cloud.created_jobs[0].id
