"""Answers with the row that they answer and their grades, as MLflow's pages show them; traces.py sends them. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from runner.data.json_value import Json
from runner.data.rows import Turns
from runner.record.graded import Answer, AnswerGrade, Asked

ID_CHARACTERS = 8
"""Of a row's id: enough to distinguish the rows of a run."""
PREVIEW_CHARACTERS = 1000
"""What the pages show and search of a request; MLflow's own previews are as long."""


@dataclass(frozen=True)
class GradedAnswer:
    """An answer of a model, the row that it answers, and what graders said of it."""

    asked: Asked
    answer: Answer
    grades: Sequence[AnswerGrade]

    @property
    def inputs(self) -> dict[str, Json]:
        """What was asked, the row's id first; of several answers to a row each but the first has its number."""
        sample: dict[str, Json] = {"sample": self.answer.sample} if self.answer.sample else {}
        return {"id": self.asked.row[:ID_CHARACTERS], **sample, "prompt": prompt_text(self.asked.prompt)}

    @property
    def outputs(self) -> Json:
        """The answer's text; with what else there is to say of it, if it was cut off or calls tools."""
        said: dict[str, Json] = msgspec.to_builtins(self.answer)
        said = {key: value for key, value in said.items() if key not in ("model", "row", "sample")}
        # Text alone is shown as text on MLflow's page, everything else as JSON.
        return said["text"] if list(said) == ["text"] else said

    @property
    def request(self) -> str:
        """The inputs in a line, for people: by it rows of two runs are paired."""
        return " · ".join(map(str, self.inputs.values()))[:PREVIEW_CHARACTERS]


def first_rows(problems: Sequence[Asked], answers: Iterable[Answer], cap: int) -> Sequence[Asked]:
    """Return the first rows, as many as no model has more than `cap` answers to; at least one."""
    # By the model with most answers to a row: rows are kept whole for all models.
    samples = max(Counter((each.model, each.row) for each in answers).values(), default=1)
    return problems[: max(1, cap // samples)]


def join(
    problems: Iterable[Asked], answers: Iterable[Answer], grades: Iterable[AnswerGrade]
) -> Mapping[str, Sequence[GradedAnswer]]:
    """Return by model the answers to some rows with their grades, in the order of the rows, then of the samples."""
    of: dict[tuple[str, str, int], list[AnswerGrade]] = {}
    for grade in grades:
        of.setdefault((grade.model, grade.row, grade.sample), []).append(grade)
    to: dict[str, list[Answer]] = {}
    for answer in answers:
        to.setdefault(answer.row, []).append(answer)
    found: dict[str, list[GradedAnswer]] = {}
    for asked in problems:
        for answer in sorted(to.get(asked.row, ()), key=lambda each: each.sample):
            row = GradedAnswer(asked, answer, of.get((answer.model, answer.row, answer.sample), ()))
            found.setdefault(answer.model, []).append(row)
    return found


def prompt_text(prompt: Turns) -> str:
    """Return a prompt as text: a single turn is its content, of several each begins with its role."""
    if len(prompt) == 1:
        return prompt[0].shown
    return "\n".join(f"{turn.role}: {turn.shown}" for turn in prompt)
