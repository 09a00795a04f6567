"""`--repeat`: the command asks for the same plan, and every change since is reported."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from runner import api
from runner.compare import repeat
from runner.request import check
from tests import warm
from tests.sweeps.conftest import Here


@pytest.fixture
def made(tmp_path: Path, tiny_model: Path, pairs_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a small run; the test is in the folder where it was typed."""
    here = Here(tmp_path, tiny_model, pairs_file)
    odd = [r"dataset.style='it\'s [\w ]+'", "name=odd.name", "dpo.n_epochs=2", "+experiments=three_epochs"]
    line = here.line("tracking=none", *odd, sweep=False)
    warm.run(line, cwd=tmp_path, env=here.environment(), check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    (folder,) = tmp_path.glob("runs/odd.name-*")
    return folder


@pytest.mark.slow
def test_the_command_asks_for_the_same_plan(made: Path) -> None:
    found = repeat.repeat(made)
    assert found.changes == ()
    line = shlex.split(found.command)
    assert line[:3] == ["python", "-m", "runner"]
    assert "name=odd.name" in line
    again = warm.run([sys.executable, *line[1:], "mode=plan"], env=os.environ | {"PYTHONWARNINGS": "ignore"})
    assert again.returncode == 0, again.stderr
    assert f"finished before: nothing is done again (again=true starts over); its folder is runs/{made.name}/" in (
        again.stdout
    )


@pytest.mark.slow
def test_what_has_changed_since_is_reported(made: Path, pairs_file: Path) -> None:
    rows = pairs_file.read_text("utf-8").splitlines(keepends=True)
    pairs_file.write_text("".join(rows[:-2]), "utf-8")
    journal = made / "journal.jsonl"
    first, _, rest = journal.read_text("utf-8").partition("\n")
    begun = json.loads(first)
    begun["event"]["versions"]["torch"] = "1.0"
    journal.write_text(json.dumps(begun) + "\n" + rest, "utf-8")
    reported = "\n".join(repeat.repeat(made).changes)
    assert "dataset.train: other content, " in reported
    assert "torch: 1.0 then and 2" in reported
    pairs_file.unlink()
    (gone, *_) = repeat.repeat(made).changes
    assert gone.startswith(f"it could not be made today: {pairs_file}: no such file")


def test_a_grader_is_typed_so_that_the_same_request_comes_of_it(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"question": f"{number}?", "answer": str(number)}) + "\n" for number in range(24))
    (tmp_path / "problems.jsonl").write_text(rows, "utf-8")
    source = 'def grade(sample, item):\n    # the row\'s own\n    return 1.0 if item["answer"] else 0.5\n'
    (tmp_path / "own.json").write_text(json.dumps({"type": "python", "name": "own", "source": source}), "utf-8")
    run = api.plan(
        "method=rft", "backend=foundry", "model.source=hosted:o4-mini", "dataset=files", "mode=plan",
        f"dataset.train={tmp_path}/problems.jsonl", f"dataset.validation={tmp_path}/problems.jsonl",
        f"rft.grader={tmp_path}/own.json",
    ).run  # fmt: skip
    again = check.request(api.composed(*repeat.overrides(run)))
    assert again.hyperparameters == run.request.hyperparameters
    assert again.hyperparameters.grader["source"] == source
