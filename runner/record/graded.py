"""Answers and their grades as they are in a folder: of a run, or of `python -m runner.evaluate`.

    problems.jsonl   each row that is asked: its id, its prompt, its other fields
    answers.jsonl    each answer: which model, which row, the number of the sample
    grades.jsonl     each grade of an answer by a grader: a score and the reason, or an error
    former_grades.jsonl    those of graders and answers that are not asked for any more, so that none is paid twice

Rows have the same id wherever they are asked, so that two runs, two methods or two backends compare row by row.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from runner.data.json_value import Json
from runner.data.rows import Prompt, Tools, Turns
from runner.record import files, layout
from runner.record.layout import ANSWERS as ANSWERS
from runner.record.layout import FORMER_GRADES as FORMER_GRADES
from runner.record.layout import GRADES as GRADES
from runner.record.layout import PROBLEMS as PROBLEMS

SIDES = ("base", "tuned")
"""Of a run, its two models; an evaluation has the names of its models instead."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that models are asked: `fields` are what graders find as `item.KEY` in addition to the prompt."""

    row: str
    prompt: Turns
    fields: dict[str, Json] = {}
    tools: Tools | None = None
    place: str = ""
    """File and line, for messages."""
    source: str = ""
    """The source of a mixture that it is from."""

    @property
    def shown(self) -> str:
        """The last turn of the prompt, for people."""
        return self.prompt[-1].shown if self.prompt else ""

    @property
    def given(self) -> Prompt:
        """What a model is given: the prompt, and the tools that it may call."""
        return Prompt(self.prompt, self.tools)


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer of a model; of several to one row each has its `sample` number, from zero."""

    model: str
    """`base` or `tuned` in a run's folder, the model's name in an evaluation's."""
    row: str
    sample: int = 0
    text: str
    ended: bool = True
    tool_calls: list[Json] | None = None


class AnswerGrade(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a grader said of an answer; `score` is None where `error` says why there is none."""

    model: str
    row: str
    sample: int = 0
    grader: str
    score: float | None = None
    reason: str = ""
    error: str = ""
    parts: dict[str, float] = {}
    key: str = ""
    """What the grade depends on: the grader's configuration and the answers it has seen."""


Kept = TypeVar("Kept", bound=msgspec.Struct)


def write(path: Path, values: Iterable[Kept]) -> None:
    """Write values as JSON lines, in place of what was there, at once."""
    # The thread that sends to MLflow reads these files meanwhile: it finds the old one or the new one.
    files.write(path, msgspec.json.Encoder().encode_lines(list(values)))


def read(path: Path, form: type[Kept]) -> Sequence[Kept]:
    """Return the values of a file; none where there is no such file. Raises `DataError` where it is damaged."""
    if not path.exists():
        return []
    return [files.decoded(path, line, form) for line in path.read_bytes().splitlines()]


def read_whole(path: Path, form: type[Kept]) -> Sequence[Kept]:
    """Return the values of a file to which more are going to be appended; a line torn by a crash is cut off."""
    files.cut_torn_line(path)
    return read(path, form)


def write_evaluation(
    folder: Path, identities: Mapping[str, str], graders: Sequence[str], rows: int,
    metrics: Mapping[str, Mapping[str, float]],
) -> None:  # fmt: skip
    """Write an evaluation's results: its models with what decides their answers, its graders, each model's metrics.

    The first model is the one that the others are compared with.
    """
    content = {
        "models": list(identities), "identities": list(identities.values()), "graders": graders, "rows": rows,
        "metrics": metrics,
    }  # fmt: skip
    files.write_json(folder / layout.EVALUATION, content)


def by_source(scores: Mapping[str, Mapping[str, float]], rows: Iterable[Asked]) -> dict[str, dict[str, float]]:
    """Return scores by row, then by grader, with each also as `SOURCE/GRADER` where the row is from a mixture."""
    # Under names of their own, so that whatever sums up or compares scores by name does so by source, too.
    sources = {each.row: each.source for each in rows}
    return {
        row: {**own, **({f"{source}/{name}": value for name, value in own.items()} if source else {})}
        for row, own in scores.items()
        for source in [sources.get(row, "")]
    }


def row_scores(grades: Iterable[AnswerGrade], model: str) -> dict[str, dict[str, float]]:
    """Return by row, then by grader, a model's mean score over the samples of a row; a row is one, however many.

    A row has no score from a grader that had an error with any of its samples.
    """
    found: dict[tuple[str, str], list[float | None]] = {}
    for each in grades:
        if each.model == model:
            found.setdefault((each.row, each.grader), []).append(each.score)
    scores: dict[str, dict[str, float]] = {}
    for (row, grader), values in found.items():
        # The samples that could be graded may be the easy ones; docs/comparison.md, "What is compared".
        if None not in values:
            scores.setdefault(row, {})[grader] = sum(v for v in values if v is not None) / len(values)
    return scores
