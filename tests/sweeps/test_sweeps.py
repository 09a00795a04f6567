"""`-m`: planned whole, run once, summed up; over real command lines on a tiny model."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner import sweeps
from runner.record.journal import read
from runner.tracking import mlflow_runs
from tests import waiting, warm
from tests.sweeps.conftest import Here

RATES = "dpo.learning_rate_multiplier=0.5,1,2"


def journals(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("runs/*/journal.jsonl")}


def test_trials_are_called_by_what_sets_them_apart() -> None:
    assert sweeps.name([["a=1", "b=2"], ["a=1", "b=3"]]) == ["b=2", "b=3"]
    assert sweeps.name([["a=1", "b=2"]]) == ["the one trial"]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("dpo.learning_rate_multiplier=0.5", "0.5 · learning_rate_multiplier"),
        ("dpo.beta=0.1, seed=2", "0.1, 2 · beta, seed"),
        ("backend.lora.targets=[q_proj, v_proj], seed=2", "[q_proj, v_proj], 2 · targets, seed"),
        ("+experiments=sft", "sft · experiments"),
        ("the one trial", "the one trial"),
    ],
)
def test_in_a_narrow_column_a_trials_values_come_first(name: str, column: str) -> None:
    assert mlflow_runs.in_column(name) == column


@pytest.mark.slow
def test_a_sweep_is_one_parent_run_with_a_child_a_trial_and_a_comparison(here: Here) -> None:
    line = ("dpo.learning_rate_multiplier=0.5,1", "seed=1,2", f"tracking.uri=sqlite:///{here.folder}/mlflow.db")
    first = here.run(*line)
    assert first.returncode == 0, first.stderr
    assert "4 trials, 0 finished before, 4 to do" in first.stdout
    assert "Best by reward accuracy: dpo.learning_rate_multiplier=" in first.stdout
    written = journals(here.folder)
    assert len(written) == 4

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{here.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("runner")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in runs if "runner.sweep" in run.data.tags)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 4
    assert "0.5, 1 · learning_rate_multiplier, seed" in {run.info.run_name for run in children}
    assert parent.info.status == "FINISHED"
    assert "Best by reward accuracy" in parent.data.tags["mlflow.note.content"]
    kept = {each.path for each in client.list_artifacts(parent.info.run_id)}
    assert {"comparison.png", "comparison.html", "comparison.json", "sweep.json"} <= kept

    (here.folder / "elsewhere").mkdir()
    for place in (here.folder, here.folder / "elsewhere"):
        found = here.compare("--experiment", "runner", "--json", folder=place)
        assert found.returncode == 0, found.stderr
        assert json.loads(found.stdout)["differences"] == here.summary()["comparison"]["differences"]

    again = here.run(*line)
    assert again.returncode == 0, again.stderr
    assert "4 trials, 4 finished before, 0 to do" in again.stdout
    assert journals(here.folder) == written, "nothing was done again"
    assert len(client.search_runs([experiment.experiment_id])) == 5, "the parent was found again"

    client.delete_run(children[0].info.run_id)
    once_more = here.run(*line)
    assert (once_more.returncode, "note: MLflow" in once_more.stdout) == (0, False), once_more.stdout
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"
    assert len(client.search_runs([experiment.experiment_id])) == 4, "what was deleted there stays so"


REFUSED = {
    ("nothing",): "run nothing: not found; give one of: one-",
    ("one", "--metric", "loss"): "--metric: got loss, which no run has; allowed: eval/logps_chosen, ",
    ("--experiment", "nothing"): "--experiment: got nothing; sqlite:///",
    ("--experiment", "runner", "--filter", "loss <"): "--filter: got loss <; ",
    ("--experiment", "runner", "--filter", "metrics.`eval/loss` < 0"): "has no run of the runner's that the filter",
}


@pytest.mark.slow
def test_what_cannot_be_compared_is_reported_in_a_sentence(here: Here) -> None:
    made = here.run("name=one", "seed=1", f"tracking.uri=sqlite:///{here.folder}/mlflow.db")
    assert made.returncode == 0, made.stderr
    for line, reported in REFUSED.items():
        refused = here.compare(*line)
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert reported in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_sweep_with_one_wrong_trial_starts_none(here: Here) -> None:
    refused = here.run("dpo.beta=0.1,0,0.2", "tracking=none")
    assert refused.returncode == 2
    assert "dpo.beta=0: dpo.beta: got 0; allowed: a number > 0 or 'auto'." in refused.stderr
    assert "no trial was started: 1 of 3 are wrong" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (here.folder / "runs").exists()


@pytest.mark.slow
def test_a_plan_lists_trials_and_touches_nothing(here: Here) -> None:
    planned = here.run("mode=plan", RATES, "tracking=none")
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.count(" new ") == 3
    assert not (here.folder / "runs").exists()


@pytest.mark.slow
def test_values_that_come_to_one_plan_are_one_trial(here: Here) -> None:
    planned = here.run("mode=plan", "dpo.beta=0.1,0.10,0.2", "seed=1,1", "tracking=none")
    assert planned.returncode == 0, planned.stderr
    assert "2 trials, 0 finished before, 2 to do" in planned.stdout


@pytest.mark.slow
def test_a_failing_trial_stops_no_other_and_the_same_command_tries_it_again(here: Here) -> None:
    """The second trial's folder is a file, so it cannot begin; then it is put right."""
    planned = here.run("mode=plan", RATES, "tracking=none").stdout
    name = next(line.split()[-1] for line in planned.splitlines() if "multiplier=1 " in line)
    blocked = here.folder / "runs" / name
    blocked.parent.mkdir()
    blocked.write_text("in the way")
    failed = here.run(RATES, "tracking=none")
    assert failed.returncode == 1
    assert "1 of 3 trials failed; give the same command again" in failed.stderr
    assert len(journals(here.folder)) == 2
    blocked.unlink()
    again = here.run(RATES, "tracking=none")
    assert again.returncode == 0, again.stderr
    assert "3 trials, 2 finished before, 1 to do" in again.stdout


@pytest.mark.slow
def test_four_trials_killed_in_the_middle_end_as_if_they_had_not_been(here: Here, tmp_path: Path) -> None:
    line = here.line("dpo.learning_rate_multiplier=0.5,1", "seed=1,2", "tracking=none", "name=four")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    warm.run(line, cwd=whole, env=here.environment(), check=True)
    process = warm.Popen(line, cwd=killed, env=here.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waiting.until(lambda: len(journals(killed)) >= 3, "three trials to begin", process=process)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    before = journals(killed)
    compared = [sys.executable, "-m", "runner.compare"]
    half = warm.run(compared, cwd=killed, env=here.environment(), check=True)
    assert half.stdout.startswith("Best by reward accuracy: "), "what is there can be compared meanwhile"
    warm.run(line, cwd=killed, env=here.environment(), check=True)
    for name in before:
        steps = [record.event.step for record in read(killed / "runs" / name / "journal.jsonl")
                 if type(record.event).__name__ == "StepDone"]  # fmt: skip
        assert len(steps) == len(set(steps)), "no step was done twice"
    tables = [next(folder.glob("runs/sweeps/*/comparison.json")).read_bytes() for folder in (whole, killed)]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_ctrl_c_ends_the_sweep_not_only_the_trial(here: Here) -> None:
    process = here.start("seed=1,2,3", "dpo.n_epochs=400", "tracking=none")
    waiting.until(
        lambda: b'"Metrics"' in b"".join(journals(here.folder).values()), "the first metrics", process=process
    )
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continue the sweep" in errors
    assert "seed=3: not begun: stopped before its turn" in errors
    assert len(journals(here.folder)) == 1


@pytest.mark.slow
def test_a_trial_may_continue_from_what_another_one_makes(here: Here, tiny_model: Path) -> None:
    folder = here.folder / "experiments"
    folder.mkdir()
    (folder / "two.yaml").write_text("# @package _global_\nname: two\nmodel:\n  source: run:one\n")
    line = [each for each in here.line("+experiments=one,two", "tracking=none") if not each.startswith("model.source")]
    (folder / "one.yaml").write_text(f"# @package _global_\nname: one\nmodel:\n  source: path:{tiny_model}\n")
    for state in ("from run:one, planned in its turn", "2 finished before"):
        done = warm.run(line, cwd=here.folder, env=here.environment())
        assert done.returncode == 0, done.stderr
        assert state in done.stdout
    assert len(list((here.folder / "runs" / "sweeps").iterdir())) == 1
    assert {path.name.partition("-")[0] for path in here.folder.glob("runs/*-*")} == {"one", "two"}
