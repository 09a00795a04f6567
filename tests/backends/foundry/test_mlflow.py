"""A hosted job is one MLflow run, whichever folder follows it; another job of the same plan is another run."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("azure.ai.projects")

from runner import execute, plan
from runner.errors import RunnerError
from runner.events import StepDone
from runner.follower import Follower
from runner.journal import Record
from runner.mlflow_run import BEGUN, HOSTED_JOB
from runner.task import run
from runner.tracking import Sender, place_of
from tests.backends.foundry.rehearsal import created_once, job_of
from tests.emulator import Emulator, Script

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


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def store(database: str, tmp_path: Path) -> Store:
    return Store(database, tmp_path.name)


def tracked(data: Path, runs: Path, store: Store, *more: str) -> plan.Job:
    where = [f"tracking.uri={store.uri}", f"tracking.experiment={store.experiment}"]
    return job_of(data, runs, "tracking.enabled=true", *where, *more)


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
    run(first)
    (before,) = store.runs()
    metrics = store.metrics(before)
    assert set(metrics.values()) == {1}
    elsewhere = moved(tmp_path, tmp_path / "elsewhere")
    second = tracked(elsewhere, elsewhere / "runs", store, "tracking.register=house")
    assert second.plan.id == first.plan.id
    cloud.created_jobs[0].script.results = "missing"
    run(second)
    shutil.rmtree(first.folder)
    run(first)
    (after,) = store.runs()
    assert created_once(cloud)
    assert after.info.run_id == before.info.run_id == place_of(second).run_id == place_of(first).run_id
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
    run(first)
    (begun,) = store.runs()
    assert begun.info.status == "RUNNING"
    second = tracked(tmp_path, tmp_path / "more", store)
    run(second)
    (ended,) = store.runs()
    assert (ended.info.run_id, ended.info.status) == (begun.info.run_id, "FINISHED")
    assert ended.data.tags[BEGUN] == begun.data.tags[BEGUN]
    other = Store(store.uri, f"{store.experiment}-alone")
    run(tracked(tmp_path, tmp_path / "alone", other))
    (alone,) = other.runs()
    assert store.metrics(ended) == store.metrics(alone)


def test_what_the_first_folder_sent_is_not_sent_again_where_the_service_tells_it_at_other_times(
    cloud: Emulator, tmp_path: Path, store: Store
) -> None:
    first = tracked(tmp_path, tmp_path / "runs", store)
    run(first)
    (before,) = store.runs()
    metrics = store.metrics(before)
    cloud.advance(3600)
    (job,) = cloud.created_jobs
    job.script.running_seconds += 1800
    run(tracked(tmp_path, tmp_path / "more", store))
    (after,) = store.runs()
    assert store.metrics(after) == metrics


def test_a_new_job_of_the_same_plan_has_its_own_mlflow_run(cloud: Emulator, tmp_path: Path, store: Store) -> None:
    first = tracked(tmp_path, tmp_path / "runs", store)
    run(first)
    execute.set_aside(first.folder)
    run(tracked(tmp_path, tmp_path / "runs", store, "again=true"))
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
        run(first)
    (tmp_path / "held_out.jsonl").write_bytes(held_out)
    run(tracked(tmp_path, tmp_path / "more", store))
    run(first)
    failed, finished = store.runs()
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")
    assert place_of(first).run_id == finished.info.run_id
    assert HOSTED_JOB not in failed.data.tags


def test_an_interrupted_look_at_a_finished_run_leaves_it_finished(
    cloud: Emulator, tmp_path: Path, store: Store
) -> None:
    run(tracked(tmp_path, tmp_path / "runs", store))
    (before,) = store.runs()
    second = tracked(tmp_path, tmp_path / "more", store, "backend.follow=false")
    run(second)
    (after,) = store.runs()
    assert after.info.status == "FINISHED"
    assert after.data.tags["mlflow.note.content"] == before.data.tags["mlflow.note.content"]
    run(replace(second, request=replace(second.request, backend=replace(second.request.backend, follow=True))))
    assert [each.info.status for each in store.runs()] == ["FINISHED"]


def test_no_mlflow_run_is_opened_before_the_job_is_known(cloud: Emulator, tmp_path: Path, store: Store) -> None:
    cloud.script = Script(running_seconds=3600)
    job = tracked(tmp_path, tmp_path / "runs", store, "backend.follow=false")
    opened: dict[str, bool] = {}

    def look(record: Record) -> None:
        if isinstance(record.event, StepDone):
            Sender(job, place_of(job)).send()
            opened[record.event.step] = bool(place_of(job).run_id)

    with execute.alone(job.folder):
        execute.execute(job, look)
    assert opened == {"upload": False, "create": True, "look": True}
    follower = Follower([job])
    (job.folder / "report.md").write_text("", "utf-8")
    follower.finish(job, "running")
    follower.end()
    (opened_once,) = store.runs()
    assert opened_once.data.tags[HOSTED_JOB] == cloud.created_jobs[0].id
