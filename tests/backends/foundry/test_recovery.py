"""Ways out of what can happen around a hosted run: things that are gone, changed, or exist and cost."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from runner import clean, models, planning
from runner.errors import RequestError
from runner.execution import execute
from runner.record.events import StepDone
from runner.record.journal import Record, read
from tests.conftest import pair_row
from tests.emulator import Emulator, Fault, Script
from tests.hosted.rehearsal import DEPLOYED, IMPATIENT, Make, carry_out, created_once, planned, standing

pytestmark = pytest.mark.slow


def test_a_file_that_is_gone_before_the_job_is_created_is_uploaded_again(cloud: Emulator, tmp_path: Path) -> None:
    cloud.inject(Fault("POST /fine_tuning/jobs", "status", status=403))
    run = planned(tmp_path, tmp_path / "runs")
    assert carry_out(run).code == 2
    cloud.files.clear()
    ended = carry_out(run)
    assert ended.code == 0, ended.message
    assert "uploaded again" in ended.notes
    assert len(cloud.created_jobs) == 1


def test_a_job_that_is_gone_for_good_can_be_made_again(cloud: Emulator, tmp_path: Path) -> None:
    vanished = Fault("GET /fine_tuning/jobs/{id}", "vanish", times=None)
    cloud.inject(vanished)
    run = planned(tmp_path, tmp_path / "runs", IMPATIENT)
    ended = carry_out(run)
    assert ended.code == 1
    assert "if it was deleted, again=true creates a new one" in ended.message
    assert execute.stuck(run)


def test_other_settings_of_a_deployment_change_the_one_that_exists(cloud: Emulator, tmp_path: Path) -> None:
    assert carry_out(planned(tmp_path, tmp_path / "runs", "backend.deploy=keep")).code == 0
    more = ["backend.deploy=keep", "backend.deployment.capacity=100", "backend.deployment.sku=Standard"]
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *more))
    assert ended.code == 0, ended.message
    (name,) = standing(cloud)
    assert cloud.deployments[name].sku == {"name": "Standard", "capacity": 100}
    assert created_once(cloud)


def test_sampling_that_fails_says_what_exists_and_costs_and_the_next_run_removes_it(
    cloud: Emulator, tmp_path: Path
) -> None:
    refusing = Fault("POST /responses", "status", times=None, status=400)
    cloud.inject(refusing)
    run = planned(tmp_path, tmp_path / "runs", DEPLOYED)
    ended = carry_out(run)
    (name,) = standing(cloud)
    assert f"The deployment {name} exists and may cost by the hour" in ended.message
    assert "python -m runner.clean" in ended.message
    refusing.left = 0
    assert carry_out(run).code == 0
    assert standing(cloud) == []


def test_data_that_is_gone_is_reported_before_anything_is_deployed(cloud: Emulator, tmp_path: Path) -> None:
    run = planned(tmp_path, tmp_path / "runs", DEPLOYED)

    def lose(record: Record) -> None:
        if isinstance(record.event, StepDone) and record.event.step == "save":
            (tmp_path / "held_out.jsonl").unlink()

    ended = carry_out(run, lose)
    assert ended.code == 2
    assert "held_out.jsonl" in ended.message
    assert cloud.deployments == {}


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        ("train", range(100, 105), "24 rows were planned, now there are 5"),
        ("train", range(100, 124), "it still has 24 rows, but with other content"),
        ("held_out", range(3), "10 rows were planned, now there are 3"),
    ],
)
def test_a_file_replaced_after_the_plan_is_refused_before_anything_is_sent(
    cloud: Emulator, tmp_path: Path, name: str, numbers: range, said: str
) -> None:
    run = planned(tmp_path, tmp_path / "runs")
    path = tmp_path / f"{name}.jsonl"
    before = path.read_bytes()
    path.write_text("".join(json.dumps(pair_row(number)) + "\n" for number in numbers), "utf-8")
    ended = carry_out(run)
    assert ended.code == 2
    assert f"{path} has changed since the run was planned: {said}" in ended.message
    assert cloud.created_files == cloud.created_jobs == []
    assert [each.name for each in run.folder.glob("*.jsonl")] == ["journal.jsonl"]
    path.write_bytes(before)
    assert carry_out(planning.load(run.folder)).code == 0
    assert created_once(cloud)


def test_held_out_rows_replaced_after_training_are_refused_before_anything_is_deployed(
    cloud: Emulator, tmp_path: Path
) -> None:
    run = planned(tmp_path, tmp_path / "runs", DEPLOYED)

    def replace(record: Record) -> None:
        if isinstance(record.event, StepDone) and record.event.step == "save":
            # the prompts asked are the first ones, so only reading to the end shows the difference
            with (tmp_path / "held_out.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(pair_row(100)) + "\n")

    ended = carry_out(run, replace)
    assert ended.code == 2
    assert "has changed since the run was planned: 10 rows were planned, now there are 11" in ended.message
    assert cloud.deployments == {}


def test_another_projects_variables_are_refused_and_leave_the_run_as_it_was(make: Make, tmp_path: Path) -> None:
    make()
    run = planned(tmp_path, tmp_path / "runs", "backend.follow=false")
    assert carry_out(run).code == 0
    before = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    make()
    with pytest.raises(RequestError, match=r"this plan was begun at http://.*, not at http://"):
        list(execute.proceed(run, lambda record: None))
    assert {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()} == before


def test_cleaning_with_another_projects_variables_touches_and_forgets_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = make()
    ended = carry_out(planned(tmp_path, tmp_path / "runs", "backend.deploy=keep"))
    make()
    monkeypatch.setattr(sys, "argv", ["runner.clean", str(ended.folder), "--yes"])
    with pytest.raises(SystemExit) as left:
        clean.main()
    assert left.value.code == 2
    assert len(standing(cloud)) == 1
    assert not any(file.deleted for file in cloud.created_files)


def test_a_hosted_runs_model_has_one_identity_however_the_run_is_called(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = carry_out(planned(tmp_path, tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    (job,) = cloud.created_jobs
    names = [ended.folder.name, ended.folder.name.rpartition("-")[2], str(ended.folder)]
    found = {models.identify(f"run:{name}", offline=True) for name in names}
    assert [each.source for each in found] == [f"hosted:{job.fine_tuned_model}"]


def test_a_suffix_of_ones_own_is_enough_where_the_service_shows_no_metadata(make: Make, tmp_path: Path) -> None:
    cloud = make(style="lax")
    cloud.echo_metadata = False
    for folder in ("here", "elsewhere"):
        ended = carry_out(planned(tmp_path, tmp_path / folder, "backend.suffix=mine"))
        assert ended.code == 0, ended.message
    assert created_once(cloud)


def test_a_run_that_is_left_reports_the_next_time_what_became_of_its_job(cloud: Emulator, tmp_path: Path) -> None:
    cloud.script = Script(running_seconds=600)
    run = planned(tmp_path, tmp_path / "runs", "backend.follow=false")
    assert carry_out(run).code == 0
    cloud.cancel_from_portal(next(iter(cloud.jobs)))
    ended = carry_out(run)
    assert ended.code == 1
    assert "was cancelled at the service" in ended.message
    states = [each.event for each in read(run.folder / "journal.jsonl")]
    assert states[-1].for_good  # type: ignore[union-attr]
