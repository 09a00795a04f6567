"""Sampled answers and their grades on the way as tables among a run's artifacts: one for each evaluation and split."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from runner.data.json_value import Json
from runner.record import graded, layout
from runner.record.events import Graded
from runner.record.graded import Answer, AnswerGrade, Asked
from runner.tracking.graded_answers import GradedAnswer, first_rows, join, prompt_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

CAP = 200
"""Answers in a table: MLflow's page reads it whole, and so does a person."""
FOLDERS = {layout.CHECKPOINT_GRADES: "held_out", layout.ROLLOUTS: "train"}


def write(client: "MlflowClient", run_id: str, folder: Path, event: Graded) -> None:
    """Log the table of an event as `answers/SPLIT/step-N.json`, unless it is there; raise whatever MLflow raises."""
    source = folder / event.folder
    where = f"answers/{FOLDERS[PurePosixPath(event.folder).parts[0]]}"
    path = f"{where}/step-{event.step:08d}.json"
    # MLflow appends to a table that is there: what a killed process or another folder has sent would be there twice.
    if path in [each.path for each in client.list_artifacts(run_id, where)]:
        return
    answers = graded.read(source / layout.ANSWERS, Answer)
    found = table(
        graded.read(source / layout.PROBLEMS, Asked), answers, graded.read(source / layout.GRADES, AnswerGrade)
    )
    if found:
        client.log_table(run_id, found, path)


def table(
    problems: Sequence[Asked], answers: Sequence[Answer], grades: Sequence[AnswerGrade], cap: int = CAP
) -> Mapping[str, list[Json]]:
    """Return the first answers as columns: prompt, number, answer, whether it was cut off, each grader's score.

    A score of a part of a `multi` is a column of its own; one that could not be given is empty, and `error` says why.
    """
    kept = join(first_rows(problems, answers, cap), answers, grades)
    rows = [_row(each) for of_model in kept.values() for each in of_model]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _row(found: GradedAnswer) -> dict[str, Json]:
    row: dict[str, Json] = {
        "prompt": prompt_text(found.asked.prompt), "sample": found.answer.sample, "answer": found.answer.text,
        "cut_off": not found.answer.ended,
    }  # fmt: skip
    for grade in found.grades:
        row[grade.grader] = grade.score
        row |= {f"{grade.grader}/{name}": score for name, score in grade.parts.items()}
    # Last, so that scores are next to the answer.
    return row | {"error": "; ".join(grade.error for grade in found.grades if grade.error)}
