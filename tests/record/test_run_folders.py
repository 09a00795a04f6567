"""Where runs are: found by path, name or plan id, in the folder that is named, whatever else is in it."""

import os
import sys
from pathlib import Path

import pytest

from runner.errors import ModelError
from runner.record import run_folders
from tests import warm
from tests.execution.test_resume import arguments


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a run that was begun again twice."""
    for folder in ("one-aaaa1111", "one-aaaa1111.before-1", "one-aaaa1111.before-2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "journal.jsonl").touch()
    return tmp_path


@pytest.mark.parametrize("name", ["one-aaaa1111", "aaaa1111", "aaaa"])
def test_a_run_that_was_begun_again_is_found_by_its_whole_name_and_its_plan(name: str, runs: Path) -> None:
    assert run_folders.find(name, runs) == runs / "one-aaaa1111"


@pytest.mark.parametrize("name", ["one", "one-aaaa"])
def test_a_run_is_found_by_the_start_of_its_name(name: str, runs: Path) -> None:
    assert run_folders.find(name, runs) == runs / "one-aaaa1111"


def test_a_run_that_was_set_aside_is_found_by_its_own_name(runs: Path) -> None:
    assert run_folders.find("one-aaaa1111.before-1", runs) == runs / "one-aaaa1111.before-1"


def test_an_empty_name_is_no_run(runs: Path) -> None:
    with pytest.raises(ModelError, match="run: got an empty name; give a run's folder"):
        run_folders.find("", runs)


def test_a_run_is_found_by_name_folder_and_plan_id(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("dpo-one-11112222", "dpo-two-33334444"):
        (runs / name).mkdir(parents=True)
        (runs / name / "journal.jsonl").touch()
    assert run_folders.find("dpo-one", runs) == run_folders.find("1111", runs) == runs / "dpo-one-11112222"
    assert run_folders.find(str(runs / "dpo-two-33334444"), runs) == runs / "dpo-two-33334444"
    with pytest.raises(ModelError, match="run dpo: several runs fit; give one of: dpo-one-11112222, dpo-two-33334444"):
        run_folders.find("dpo", runs)


def test_the_variable_names_the_folder_in_which_runs_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_folders.default() == Path("runs")
    monkeypatch.setenv("RUNNER_RUNS_FOLDER", "/shared/runs")
    assert run_folders.default() == Path("/shared/runs")


def test_a_run_is_called_by_its_name_only_where_commands_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_folders.handle(Path("runs/one-aaaa1111")) == "one-aaaa1111"
    assert run_folders.handle(Path("elsewhere/one-aaaa1111")) == "elsewhere/one-aaaa1111"
    monkeypatch.setenv("RUNNER_RUNS_FOLDER", "elsewhere")
    assert run_folders.handle(Path("elsewhere/one-aaaa1111")) == "one-aaaa1111"


def test_no_other_module_knows_where_runs_are() -> None:
    package = Path(run_folders.__file__).parents[1]
    knowing = [path.name for path in package.rglob("*.py") if 'Path("runs")' in path.read_text("utf-8")]
    assert knowing == ["run_folders.py"]


@pytest.mark.slow
def test_every_command_finds_runs_in_the_folder_that_it_is_reported(tiny_model: Path, pairs_file: Path) -> None:
    folder = pairs_file.parent

    def command(*line: str, typed: str = "", **variables: str) -> str:
        environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"} | variables
        process = warm.run([sys.executable, "-m", *line], cwd=folder, env=environment, input=typed)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    line = ["runner", *arguments(tiny_model, pairs_file, "dpo.n_epochs=1", "evaluation.samples=0")]
    command(*line, "runs_folder=elsewhere", "name=one")
    (made,) = (folder / "elsewhere").glob("one-*")
    assert not (folder / "runs").exists()

    there = ["--runs-folder", "elsewhere"]
    assert f"Asking {made.name}" in command("runner.chat", *there, "one")
    assert f"Asking {made.name}" in command("runner.chat", *there)
    assert f"Asking {made.name}" in command("runner.chat", RUNNER_RUNS_FOLDER="elsewhere")
    assert f"Asking {made.name}" in command("runner.chat", str(made))
    assert "runs_folder=elsewhere" in command("runner.compare", *there, "--repeat", "one")
    assert made.name in command("runner.compare", *there, "one", "one")
    assert command("runner.watch", *there).strip() == "elsewhere/: no hosted job is under way."

    onward = [*line, "mode=plan", "dpo.beta=0.2"]
    by_name = command(*onward, "runs_folder=elsewhere", "model.source=run:one")
    assert f"run:elsewhere/{made.name}" in by_name
    assert by_name == command(*onward, "model.source=run:one", RUNNER_RUNS_FOLDER="elsewhere")
