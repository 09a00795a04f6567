"""What `docs/extending.md` quotes: each extension is the files that it adds, and no file of the runner changes."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests import warm
from tests.conftest import pair_row
from tests.execution.test_resume import quietly

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "extend"
FILES = {
    "method": ("runner/methods/sft_by_row.py", "conf/method/sft_by_row.yaml"),
    "loss by token": ("runner/methods/dft.py", "conf/method/dft.yaml"),
    "loss": ("runner/methods/dpo/losses/cpo.py",),
    "shape": ("runner/data/formats/best_worst.py",),
    "kind": (
        "runner/data/kinds/rated.py", "runner/data/formats/rated.py",
        "runner/methods/rated_sft.py", "conf/method/rated_sft.yaml",
    ),
    "grader": ("runner/graders/first_line.py", "conf/grader/first_line.yaml"),
    "source": ("runner/models/sources/zip.py",),
    "backend": (
        "runner/backends/majority/__init__.py", "runner/backends/majority/backend.py", "conf/backend/majority.yaml",
    ),
}  # fmt: skip
"""The files of each extension: one in Python (a backend's keys have their own), and one in YAML where it is chosen.

A method for rows as no other method has them is its own file, those of kind and shape, and the YAML.
"""
QUICK = ("dataset=files", "dataset.validation_fraction=0.25", "evaluation.samples=0", "tracking=none")

Extended = Callable[..., str]


@pytest.fixture
def extended(tmp_path: Path) -> Extended:
    """Return what copies the runner, adds the files of an extension, and runs a command in that copy."""

    def run(extension: str, program: str, *line: str, typed: str = "", fails: bool = False) -> str:
        home = tmp_path / "home"
        if not home.exists():
            for name in ("runner", "conf", "experiments", "hydra_plugins"):
                shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES[extension]:
            assert not (home / name).exists() or (home / name).read_bytes() == (EXAMPLES / name).read_bytes()
            (home / name).parent.mkdir(exist_ok=True)
            shutil.copy(EXAMPLES / name, home / name)
        whole = [sys.executable, "-m", program, *line]
        ended = warm.run(whole, cwd=home, env=quietly(), check=not fails, input=typed)
        return ended.stderr if fails else ended.stdout

    return run


def test_every_file_of_the_examples_belongs_to_one_extension() -> None:
    found = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.*") if "__pycache__" not in path.parts}
    assert found == {name for names in FILES.values() for name in names}


@pytest.mark.slow
def test_a_method_is_one_file_and_one_yaml(extended: Extended, tiny_model: Path, pairs_file: Path) -> None:
    line = ("method=sft_by_row", f"dataset.train={pairs_file}", f"model.source=path:{tiny_model}", *QUICK)
    assert "sft_by_row.n_epochs" in extended("method", "runner", *line, "mode=plan")
    output = extended("method", "runner", *line, "sft_by_row.n_epochs=1")
    assert "status  finished" in output
    assert "eval/token_accuracy" in output


@pytest.mark.slow
def test_a_loss_by_token_is_one_file_and_one_yaml(extended: Extended, tiny_model: Path, pairs_file: Path) -> None:
    line = ("method=dft", f"dataset.train={pairs_file}", f"model.source=path:{tiny_model}", *QUICK)
    output = extended("loss by token", "runner", *line, "dft.n_epochs=1")
    assert "status  finished" in output
    assert "eval/token_accuracy" in output


@pytest.mark.slow
def test_a_preference_loss_is_one_file(extended: Extended, tiny_model: Path, pairs_file: Path) -> None:
    line = ("dpo.loss_type=cpo", f"dataset.train={pairs_file}", f"model.source=path:{tiny_model}", *QUICK)
    output = extended("loss", "runner", *line, "dpo.n_epochs=1")
    assert "status  finished" in output
    assert "eval/reward_accuracy" in output


@pytest.mark.slow
def test_a_data_shape_is_one_file(extended: Extended, tiny_model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "ratings.jsonl"
    made = [{"question": f"Why {n}?", "best": f"In short: {n}.", "worst": f"Well, {n} …"} for n in range(16)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    line = (f"dataset.train={rows}", f"model.source=path:{tiny_model}", *QUICK, "mode=plan")
    assert "train" in extended("shape", "runner", *line)


@pytest.mark.slow
def test_a_kind_of_rows_with_its_method_and_shape_is_three_files_and_one_yaml(
    extended: Extended, tiny_model: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rated.jsonl"
    made = [{"prompt": f"Why {n}?", "completion": f"In short: {n}.", "score": 0.0} for n in range(24)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    line = ("method=rated_sft", f"dataset.train={rows}", f"model.source=path:{tiny_model}", *QUICK)
    output = extended("kind", "runner", *line, "rated_sft.n_epochs=1")
    assert "status  finished" in output
    (report,) = (tmp_path / "home").glob("runs/*/report.json")
    # Only a loss that sees the scores, which are 0, is 0.
    assert json.loads(report.read_bytes())["metrics"]["train/loss"] == 0
    assert "answers with a score" in extended("kind", "runner", *line[1:], "mode=plan", fails=True)


def test_the_loss_of_a_rated_answer_is_that_of_sft_times_its_score() -> None:
    import runpy

    import torch

    from runner.methods import Scores

    extension = runpy.run_path(str(EXAMPLES / "runner" / "methods" / "rated_sft.py"))
    scores = Scores(torch.tensor([[-9.0], [-9.0]]), torch.full((2, 1), 3.0), torch.ones(2, 1))
    scored = replace(scores, targets=torch.tensor([[1.0], [0.25]]))
    loss, _ = extension["METHOD"].loss(scored, None, extension["RatedSFTKeys"]())
    assert loss.tolist() == pytest.approx([3.0, 0.75])


@pytest.mark.slow
def test_a_grader_is_one_file_and_one_yaml(extended: Extended, tiny_model: Path, pairs_file: Path) -> None:
    line = (f"dataset.train={pairs_file}", f"model.source=path:{tiny_model}", *QUICK, "evaluation.samples=2")
    output = extended("grader", "runner", *line, "evaluation.graders=[first_line]", "mode=plan")
    assert "headline  first_line" in output
    output = extended(
        "grader", "runner", *line, "evaluation.graders=[first_line]", "dpo.n_epochs=1", "evaluation.max_new_tokens=4"
    )
    assert "eval/headline_before" in output


@pytest.mark.slow
def test_a_model_source_is_one_file(extended: Extended, tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "model.zip", "w") as archive:
        for path in tiny_model.iterdir():
            archive.write(path, path.name)
    line = (f"model.source=zip:{tmp_path}/model.zip", f"dataset.train={pairs_file}", *QUICK, "dpo.n_epochs=1")
    assert "status  finished" in extended("source", "runner", *line)


@pytest.mark.slow
def test_a_backend_is_one_package_and_one_yaml(extended: Extended, tiny_model: Path, tmp_path: Path) -> None:
    rows = [pair_row(n) | {"preferred_output": [{"role": "assistant", "content": "Yes."}]} for n in range(3)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, pair_row(4)]), "utf-8")
    line = ("backend=majority", f"dataset.train={tmp_path}/pairs.jsonl", f"model.source=path:{tiny_model}")
    output = extended("backend", "runner", *line, "dataset=files", "evaluation.samples=0", "tracking=none")
    assert "status  finished" in output
    assert "Yes." in extended("backend", "runner.chat", typed="Is it good?\n")
    again = extended("backend", "runner", *line, "dataset=files", "evaluation.samples=0", "tracking=none")
    assert "finished before" in again
