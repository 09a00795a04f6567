"""Real commands in interpreters of their own: most tests fork theirs (tests/warm.py), which must come to the same."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import warm
from tests.execution.test_resume import adapter, arguments, quietly, run_command, the_run

pytestmark = pytest.mark.slow


def run_fresh(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    line = (sys.executable, *line)
    return subprocess.run(line, cwd=folder, env=quietly(), capture_output=True, text=True, check=False, timeout=180)


LINES = {
    "help": ["runner", "--help"],
    "plan": ["runner", "mode=plan"],
    "composed": ["runner", "--cfg", "job"],
    "unknown key": ["runner", "dpo.n_epoch=3"],
    "wrong value": ["runner", "dpo.beta=0"],
    "wrong sweep": ["runner", "-m", "dpo.beta=interval(0.1, 1)"],
    "missing variable": ["runner", "dpo.beta=${oc.env:NO_SUCH_VARIABLE}"],
    "hosted model missing": ["runner", "backend=foundry"],
    "chat": ["runner.chat"],
    "clean": ["runner.clean", "nothing"],
    "compare": ["runner.compare", "nothing"],
    "export": ["runner.export", "nothing"],
    "serve": ["runner.serve", "nothing"],
    "jobs": ["runner.jobs", "cancel"],
    "promote": ["runner.promote", "nothing"],
    "watch": ["runner.watch", "nothing"],
}


ONE_OF_EACH = ("plan", "unknown key", "chat", "clean", "compare", "jobs", "watch")
"""A line of each command, and an error of Hydra's; the others go the same way from the command to the last word."""


@pytest.mark.parametrize(
    "line",
    [pytest.param(LINES[each], id=each, marks=() if each in ONE_OF_EACH else pytest.mark.exhaustive) for each in LINES],
)
def test_a_fresh_interpreter_says_what_a_forked_command_says(line: list[str], tmp_path: Path) -> None:
    fresh = run_fresh(tmp_path, "-m", *line)
    forked = run_command(tmp_path, "-m", *line)
    assert (fresh.returncode, fresh.stdout, fresh.stderr) == (forked.returncode, forked.stdout, forked.stderr)
    assert fresh.stdout + fresh.stderr != ""


def test_a_fresh_interpreter_trains_to_the_bits_of_a_forked_command(
    tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    fresh, forked = tmp_path / "fresh", tmp_path / "forked"
    fresh.mkdir(), forked.mkdir()
    line = ["-m", "runner", *arguments(tiny_model, pairs_file, "dpo.n_epochs=1")]
    for folder, run in ((fresh, run_fresh), (forked, run_command)):
        done = run(folder, *line)
        assert done.returncode == 0, done.stderr
    assert the_run(fresh).name == the_run(forked).name
    assert adapter(fresh) == adapter(forked)


@pytest.mark.parametrize("seconds", [pytest.param(0.3, marks=pytest.mark.exhaustive), 1.5])  # both amid the imports
def test_a_kill_during_the_imports_disturbs_nothing(
    seconds: float, tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    line = ["-m", "runner", *arguments(tiny_model, pairs_file, "dpo.n_epochs=1")]
    with subprocess.Popen([sys.executable, *line], cwd=tmp_path, env=quietly(), stdout=subprocess.DEVNULL) as process:
        time.sleep(seconds)
        process.kill()
    done = run_command(tmp_path, *line)
    assert done.returncode == 0, done.stderr
    assert (the_run(tmp_path) / "model" / "reference.json").exists()


def test_a_command_warns_of_nothing_in_an_interpreter_that_shows_all_warnings(tmp_path: Path) -> None:
    """Other tests run with PYTHONWARNINGS=ignore, which would hide one of ours."""
    shown = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    line = [sys.executable, "-W", "default:::runner", "-m", "runner", "mode=plan"]
    assert not warm.is_warm(line)
    done = subprocess.run(line, cwd=tmp_path, env=shown, capture_output=True, text=True, check=False, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
