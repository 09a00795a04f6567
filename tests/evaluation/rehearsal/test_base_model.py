"""`rehearse=true`: the base model's pass rate and spread are known before anything is trained, and asked for once."""

import os
import sys
from pathlib import Path

import pytest

from runner.evaluation import configured
from runner.evaluation.rehearsal.base_model import scores
from runner.graders import Grader
from runner.record.graded import AnswerGrade
from tests import warm


def grader(threshold: float | None = None) -> Grader:
    [made] = configured.named([{"type": "length", "name": "g", "max": 3, "pass_threshold": threshold}])
    return made


def grades(*by_row: list[float | None]) -> list[AnswerGrade]:
    return [
        AnswerGrade(
            model="base", row=f"row {number}", sample=sample, grader="g", score=score, error="" if score else "no"
        )
        for number, row in enumerate(by_row)
        for sample, score in enumerate(row)
    ]


def test_pass_rate_and_spread_are_those_of_the_answers() -> None:
    found = scores(grader(0.5), grades([0.0, 1.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25]))
    assert (found.prompts, found.varied, found.pass_rate) == (2, 1, 0.25)
    assert found.mean == pytest.approx(0.375)
    # variances 1/4 and 0 within the prompts; that the prompts differ from each other does not count
    assert found.spread == pytest.approx((1 / 8) ** 0.5)
    assert found.warnings == ()


def test_without_a_threshold_a_score_of_1_passes_where_all_are_0_or_1_and_else_nothing_is_said() -> None:
    assert scores(grader(), grades([0.0, 1.0], [1.0, 1.0])).pass_rate == 0.75
    assert scores(grader(), grades([0.2, 1.0])).pass_rate is None


@pytest.mark.parametrize(
    ("by_row", "warnings"),
    [
        ([[0.0, 0.0], [0.0, 0.0]], ["all samples of each prompt score the same", "no answer passes (0 %)"]),
        ([[1.0, 1.0], [1.0, 1.0]], ["all samples of each prompt score the same", "every answer passes (100 %)"]),
        ([[0.0, 0.0], [1.0, 1.0]], ["all samples of each prompt score the same"]),
        ([[0.0, 1.0], [None, 1.0]], ["1 of 4 answers have no grade"]),
        ([[None, None]], ["no answer has a grade: no"]),
    ],
)
def test_what_prevents_learning_is_reported(by_row: list[list[float | None]], warnings: list[str]) -> None:
    found = scores(grader(), grades(*by_row)).warnings
    assert len(found) == len(warnings)
    assert all(reported.startswith(expected) for reported, expected in zip(found, warnings, strict=True))


@pytest.mark.slow
def test_a_plan_asks_the_base_model_once(tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    line = [
        sys.executable, "-m", "runner", "mode=plan", "rehearse=true", f"model.source=path:{tiny_model}",
        f"dataset.train={pairs_file}", "dataset.validation=null", "dataset.style=null", "tracking=none",
        "evaluation.max_new_tokens=4", "evaluation.graders=[{type: length, name: short, max: 1, unit: words}]",
    ]  # fmt: skip
    own = os.environ | {"PYTHONWARNINGS": "ignore", "COLUMNS": "200", "RUNNER_CACHE": str(tmp_path / "cache")}
    process = warm.run(line, cwd=tmp_path, env=own)
    assert process.returncode == 0, process.stderr
    assert "Base model, 4 answers to each of 8 prompts" in process.stdout
    assert not (tmp_path / "runs").exists()
    (kept,) = (tmp_path / "cache" / "rehearsals").glob("*/answers.jsonl")
    assert len(kept.read_bytes().splitlines()) == 8 * 4
    before = kept.stat().st_mtime_ns
    table = process.stdout[process.stdout.index("Base model, 4") :]
    again = warm.run(line, cwd=tmp_path, env=own)
    assert table in again.stdout
    assert kept.stat().st_mtime_ns == before
    made = warm.run([*(each for each in line if "=plan" not in each), "backend.max_steps=1"], cwd=tmp_path, env=own)
    assert made.returncode == 0, made.stderr
    finished = warm.run([*line, "backend.max_steps=1"], cwd=tmp_path, env=own)
    assert "note: rehearse=true: the run was finished before, so that nothing is rehearsed" in finished.stdout
