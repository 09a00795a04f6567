"""A hosted run that was left comes back by `python -m runner.watch`: one, several or all, stopped or not."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from runner import planning, watch
from runner.errors import RequestError
from runner.execution import execute
from runner.record.events import Metrics, Started
from runner.request import check, hydra_config
from tests import warm
from tests.emulator import Script
from tests.hosted_cli import (
    ALONE,
    ENDLESS,
    LINE,
    QUICK,
    Hosted,
    hosted,
    measured,
    read_state,
    records,
    report,
    sentence,
    steps,
)

pytestmark = pytest.mark.slow

TO_THE_MODEL = ["upload", "create", "look", "follow", "results", "save"]
# One run and several are followed by different code; where only the words differ, `several` stands for both.
ONE_OR_SEVERAL = pytest.mark.parametrize(
    "count", [pytest.param(1, id="one", marks=pytest.mark.exhaustive), pytest.param(2, id="several")]
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path) as here:
        yield here


def names(here: Hosted, count: int) -> list[Path]:
    """Make runs of several plans by one command, none of which is followed."""
    seeds = ",".join(str(number) for number in range(count))
    process = here.command("runner", "-m", *LINE, ALONE, "name=run", f"seed={seeds}")
    assert process.returncode == 0, process.stderr
    return sorted(here.folder.glob("runs/run-*"))


def test_a_run_that_does_not_follow_leaves_its_job_running(here: Hosted) -> None:
    here.cloud.script = ENDLESS
    run = here.run(ALONE)
    assert steps(run) == ["upload", "create", "look"]
    assert report(run)["status"] == "running"
    assert report(run)["message"] == f"the job continues at the service; python -m runner.watch {run.name} follows it"
    assert here.status(here.job(run)) == "running"


@pytest.mark.parametrize("name", [pytest.param("{0.name}", marks=pytest.mark.exhaustive), "plan id", ""])
def test_watching_a_run_brings_it_to_its_end(name: str, here: Hosted) -> None:
    run = here.run(ALONE)
    argument = run.name.rpartition("-")[2][:6] if name == "plan id" else name.format(run)
    process = here.command("runner.watch", *([argument] if argument else []))
    assert process.returncode == 0, process.stderr
    assert steps(run) == TO_THE_MODEL
    assert report(run)["status"] == "finished"
    assert report(run)["model"]["job"] == here.job(run)
    assert len(here.cloud.created_jobs) == 1


def test_what_was_watched_is_what_would_have_been_followed(here: Hosted) -> None:
    followed = here.run("name=followed")
    (here.folder / "elsewhere").mkdir()
    with hosted(here.folder / "elsewhere") as elsewhere:
        watched = elsewhere.run(ALONE)
        assert elsewhere.command("runner.watch").returncode == 0
        assert measured(watched) == measured(followed) != {}


def test_watching_all_follows_each_to_its_end_and_one_that_failed_gives_the_code(here: Hosted) -> None:
    here.cloud.script = ENDLESS
    runs = names(here, 3)
    jobs = [here.job(run) for run in runs]
    with here.started("runner.watch") as process:
        here.wait(lambda: all(read_state(run).states.get("job") == "running" for run in runs), "all jobs to run")
        here.cloud.fail(jobs[1], {"code": "server_error", "message": "A machine broke."})
        here.wait(lambda: read_state(runs[1]).failed_for_good, "the failure in the journal")
        assert process.poll() is None
        here.cloud.advance(4000)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1, output + errors
    assert [report(run)["status"] for run in runs] == ["finished", "failed", "finished"]
    assert [steps(run)[-1] for run in runs] == ["save", "look", "save"]
    assert f"{runs[1].name}: failed: {jobs[1]}: the job failed: server_error: A machine broke; " in output
    assert f"{runs[0].name}: finished" in output
    assert "Traceback" not in output + errors
    assert measured(runs[0]) == measured(runs[2]) != {}
    assert len(here.cloud.created_jobs) == 3
    again = here.command("runner.watch")
    assert (again.returncode, again.stdout.strip()) == (0, "runs/: no hosted job is under way.")


@pytest.mark.exhaustive  # all are followed: the test above; code 0: any of one run below
def test_all_that_succeed_give_the_code_zero(here: Hosted) -> None:
    runs = names(here, 2)
    process = here.command("runner.watch")
    assert process.returncode == 0, process.stderr
    assert [steps(run) for run in runs] == [TO_THE_MODEL, TO_THE_MODEL]


def test_only_the_runs_named_are_followed(here: Hosted) -> None:
    runs = names(here, 3)
    process = here.command("runner.watch", runs[0].name, str(runs[2]))
    assert process.returncode == 0, process.stderr
    assert [steps(run)[-1] for run in runs] == ["save", "look", "save"]


@pytest.mark.parametrize("count", [1, 2], ids=["one", "several"])
def test_ctrl_c_leaves_the_jobs_running_and_watching_again_makes_up_for_what_came_meanwhile(
    count: int, here: Hosted
) -> None:
    undisturbed = measured(here.run("name=undisturbed", "seed=99"))
    here.cloud.script = ENDLESS
    runs = names(here, count)
    with here.started("runner.watch") as process:
        advance_to_three_steps(here, *runs)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert "Traceback" not in output + errors
    for run in runs:
        assert here.status(here.job(run)) == "running"
        assert report(run)["status"] == "running"
        assert 3 <= heard(run) < 10
    reported = (
        f"{here.job(runs[0])} continues at the service; come back with"
        if count == 1
        else "2 jobs continue at the service"
    )
    assert reported in output + errors
    assert not any(request.path.endswith("/cancel") for request in here.cloud.requests)
    here.cloud.advance(4000)
    again = here.command("runner.watch")
    assert again.returncode == 0, again.stderr
    for run in runs:
        assert steps(run) == TO_THE_MODEL
        assert measured(run) == undisturbed
        assert sum(isinstance(each.event, Started) for each in records(run)) == 3


def advance_to_three_steps(here: Hosted, *runs: Path) -> None:
    """Move the service's clock until endless jobs have done three of their ten steps, and their runs have heard it."""
    here.wait(lambda: all(read_state(run).states.get("job") == "running" for run in runs), "all jobs to run")
    here.cloud.advance(0.35 * ENDLESS.running_seconds)
    here.wait(lambda: all(heard(run) >= 3 for run in runs), "metrics of three steps")


def heard(run: Path) -> int:
    """Return how many steps' metrics the journal holds."""
    return len({each.event.step for each in records(run) if isinstance(each.event, Metrics)})


def test_a_watcher_that_is_killed_loses_nothing(here: Hosted) -> None:
    undisturbed = measured(here.run("name=undisturbed", "seed=99"))
    here.cloud.script = ENDLESS
    (run,) = names(here, 1)
    with here.started("runner.watch", run.name):
        advance_to_three_steps(here, run)
    here.cloud.advance(4000)
    assert here.command("runner.watch", run.name).returncode == 0
    assert measured(run) == undisturbed


def test_a_run_that_another_process_follows_is_left_to_it(here: Hosted) -> None:
    here.cloud.script = ENDLESS
    one, two = names(here, 2)
    with here.started("runner.watch", one.name) as first:
        here.held(one, first)
        reported = sentence(here.command("runner.watch", one.name), code=1)
        assert f"process {first.pid} " in reported
        assert "works on this plan already" in reported
        here.cloud.fail(here.job(two), None)
        both = here.command("runner.watch")
        assert f"process {first.pid} " in both.stderr
        assert f"{two.name}: failed" in both.stdout
        assert first.poll() is None


def test_a_job_that_ended_without_a_model_is_reported_again_but_not_followed_by_itself(here: Hosted) -> None:
    here.cloud.script = Script(outcome="failed", error={"code": "bad", "message": "It broke."})
    run = here.run(code=1)
    assert "no hosted job is under way" in here.command("runner.watch").stdout
    process = here.command("runner.watch", run.name)
    assert process.returncode == 1
    assert "the job failed: bad: It broke; " in process.stderr
    assert len(here.cloud.created_jobs) == 1


def test_a_run_that_was_begun_again_is_the_one_that_is_followed(here: Hosted) -> None:
    here.cloud.script = Script(outcome="failed")
    here.run(code=1)
    here.cloud.script = QUICK
    run = here.run(ALONE, "again=true")
    process = here.command("runner.watch")
    assert process.returncode == 0, process.stderr
    assert steps(run) == TO_THE_MODEL
    assert len(list(here.folder.glob("runs/*.before-1"))) == 1


LIMITED = """
import resource, runpy, sys
size = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
runpy.run_module("runner.watch", run_name="__main__")
"""
"""`runner.watch` where no file may grow beyond a size: what is written fails as it does on a full disk."""


@ONE_OR_SEVERAL
def test_a_full_disk_is_a_sentence_and_the_jobs_are_followed_once_there_is_room(count: int, here: Hosted) -> None:
    runs = names(here, count)
    (here.folder / "limited.py").write_text(LIMITED, "utf-8")
    size = max((run / "journal.jsonl").stat().st_size for run in runs)
    process = here.command("limited", str(size))
    assert process.returncode == 1, process.stdout + process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    reported = process.stdout if count > 1 else sentence(process, code=1)  # of several each is reported of by its name
    for run in runs:
        assert f"runs/{run.name}/journal.jsonl: File too large; fix that and give the same command again" in reported
    assert here.command("runner.watch").returncode == 0
    assert [steps(run) for run in runs] == [TO_THE_MODEL] * count


def test_a_journal_that_cannot_be_read_is_a_sentence(here: Hosted) -> None:
    (here.folder / "runs" / "run-aaaa0000" / "journal.jsonl").mkdir(parents=True)
    reported = sentence(here.command("runner.watch"), code=1)
    assert reported.startswith("runs/run-aaaa0000/journal.jsonl: Is a directory; ")


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        (["nothing"], "run nothing: not found; give one of: run0-"),
        (["run"], "run run: several runs fit; give one of: run0-"),
        (["run0", "nothing"], "run nothing: not found; give one of: "),
        (["--all"], "python -m runner.watch: unrecognized arguments: --all; "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_name_is_reported_and_nothing_is_followed(line: list[str], reported: str, here: Hosted) -> None:
    for number in range(2):
        folder = here.folder / "runs" / f"run{number}-aaaa{number}"
        folder.mkdir(parents=True)
        (folder / "journal.jsonl").touch()
    assert sentence(here.command("runner.watch", *line)).startswith(reported)
    assert here.cloud.requests == []


def test_a_run_that_was_never_begun_is_reported(here: Hosted) -> None:
    folder = here.folder / "runs" / "run-aaaa0000"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").touch()
    assert "so runs/run-aaaa0000 is no run that was begun" in sentence(here.command("runner.watch", "run"))


def test_a_local_run_is_reported_how_to_continue_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    hydra_config.register()
    with initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"):
        composed = OmegaConf.to_container(compose("config", ["mode=plan"]), resolve=True)
    job = planning.make(check.request(composed)).run
    job.folder.mkdir(parents=True)
    execute.keep(job)
    with pytest.raises(RequestError, match=r"is no hosted run; give its command again to resume it\.$"):
        watch._hosted(planning.load(job.folder))


IN_MLFLOW = """
import json
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
runs = client.search_runs([client.get_experiment_by_name("runner").experiment_id])
reported = {
    run.info.run_name: (run.info.status, sorted(run.data.metrics.items()))
    for run in runs
    if "runner.sweep" not in run.data.tags
}
print(json.dumps(reported))
"""


def test_several_runs_that_are_watched_are_tracked_each_by_itself(here: Hosted) -> None:
    here.cloud.script = ENDLESS
    line = [each for each in LINE if each != "tracking=none"]
    assert here.command("runner", "-m", *line, ALONE, "name=run", "seed=0,1").returncode == 0
    runs = sorted(here.folder.glob("runs/run-*"))
    with here.started("runner.watch") as process:
        here.wait(lambda: all(read_state(run).states.get("job") == "running" for run in runs), "all jobs to run")
        here.cloud.fail(here.job(runs[1]), None)
        here.cloud.advance(4000)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, output + errors
    found = warm.run([sys.executable, "-c", IN_MLFLOW], cwd=here.folder, env=here.environment(), check=True)
    reported = json.loads(found.stdout.splitlines()[-1])
    done, failed = (f"{planning.load(run).plan.seed} · seed" for run in runs)
    assert {name: status for name, (status, _) in reported.items()} == {done: "FINISHED", failed: "FAILED"}
    last = max(measured(runs[0]))[0]
    assert dict(reported[done][1])["train/loss"] == measured(runs[0])[last, "train/loss"]
