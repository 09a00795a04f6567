"""Graded answers on disk, as a run and as `python -m runner.evaluate` leave them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from runner.compare.results import Result
from runner.data.rows import Message
from runner.record import graded
from runner.record.graded import Answer, AnswerGrade, Asked

Scores = Mapping[str, Sequence[float]]
"""Scores of the rows in turn, by grader."""


def write(
    folder: Path,
    models: Mapping[str, Scores],
    texts: Mapping[str, Sequence[str]] | None = None,
    question: str = "Question {at}?",
) -> Path:
    """Write rows, answers and grades of models; texts are those of the answers."""
    folder.mkdir(parents=True, exist_ok=True)
    count = max(len(values) for scores in models.values() for values in scores.values())
    asked = [
        Asked(row=f"row{at}", prompt=(Message(role="user", content=question.format(at=at)),)) for at in range(count)
    ]
    answers = [
        Answer(model=model, row=f"row{at}", text=texts[model][at] if texts else f"{model} says {at}")
        for model in models for at in range(count)
    ]  # fmt: skip
    grades = [
        AnswerGrade(model=model, row=f"row{at}", grader=grader, score=float(value), reason=f"{grader} finds {value}")
        for model, scores in models.items() for grader, values in scores.items() for at, value in enumerate(values)
    ]  # fmt: skip
    graded.write(folder / graded.PROBLEMS, asked)
    graded.write(folder / graded.ANSWERS, answers)
    graded.write(folder / graded.GRADES, grades)
    return folder


def write_evaluation(folder: Path, models: Mapping[str, Scores], **more: Any) -> Path:
    """Write what an evaluation leaves."""
    write(folder, models, **more)
    names = {"models": list(models), "graders": list(next(iter(models.values())))}
    (folder / "evaluation.json").write_bytes(msgspec.json.encode(names))
    return folder


def run(folder: Path, scores: Scores, **params: Any) -> Result:
    """Return a finished run whose answers were graded, as it is read from its folder."""
    rows: dict[str, dict[str, float]] = {}
    for grader, values in scores.items():
        for at, value in enumerate(values):
            rows.setdefault(f"row{at}", {})[grader] = float(value)
    return Result(
        folder=folder, plan_id=folder.name, status="finished", message="", params={"seed": 1} | params, curves={},
        metrics={f"eval/{name}": float(sum(values) / len(values)) for name, values in scores.items()}, rows=rows,
        seconds={}, graders=tuple(scores),
        binary=frozenset(name for name, values in scores.items() if set(map(float, values)) <= {0.0, 1.0}),
    )  # fmt: skip
