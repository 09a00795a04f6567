"""The graded rows of a run as they are in its folder: for tests of what MLflow shows, and their benchmark."""

from pathlib import Path

from runner.data.rows import Message
from runner.record import graded
from runner.record.graded import Answer, AnswerGrade, Asked

MODELS = ("base", "tuned")


def row_id(number: int) -> str:
    """Return the id of a row, as long as a real one."""
    return f"{number:06x}" + "0123456789abcdef" * 3


def score(number: int, model: str) -> float:
    """Return what the grader `style` gives a model's answer: no two neighbours the same, the tuned one's are better."""
    return (number % 4 + (model == "tuned")) / 4


def put(folder: Path, rows: int, samples: int = 1, words: int = 20, tuned: str = "tuned") -> None:
    """Write rows, the answers of both models and the grades of two graders; `judge` fails at each fifth row.

    An answer of the tuned model begins with `tuned`, one of the base model with `base`.
    """
    answers, grades = [], []
    problems = [
        Asked(row=row_id(number), prompt=(Message("user", f"How do I keep {number} loaves fresh?"),),
              fields={"reference": f"cloth {number}"}, place=f"held_out.jsonl:{number + 1}")
        for number in range(rows)
    ]  # fmt: skip
    for number in range(rows):
        for model in MODELS:
            for sample in range(samples):
                key = {"model": model, "row": row_id(number), "sample": sample}
                text = f"{tuned if model == 'tuned' else model} {number}.{sample}: " + "wrap it in cloth " * (
                    words // 4
                )
                answers.append(Answer(**key, text=text))  # type: ignore[arg-type]
                reason = f"{model} row {number} has two labels"
                grades.append(AnswerGrade(**key, grader="style", score=score(number, model), reason=reason))  # type: ignore[arg-type]
                failed = {"score": None, "error": f"row {number}: the judge timed out"} if number % 5 == 0 else {}
                grades.append(AnswerGrade(**key, **{"grader": "judge", "score": 0.25} | failed))  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    graded.write(folder / graded.PROBLEMS, problems)
    graded.write(folder / graded.ANSWERS, answers)
    graded.write(folder / graded.GRADES, grades)
