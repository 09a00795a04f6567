"""Models answer the same rows, and graders grade the answers: what `python -m runner.evaluate` does, in a folder.

    problems.jsonl, answers.jsonl, grades.jsonl    as in a run's folder (record/graded.py)
    evaluation.json                                the models, the graders, how each model did

A folder belongs to models, rows and sampling: the same command continues where it stopped, and other graders grade
the answers that are there.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from runner import planning
from runner.backends import Respondent
from runner.data.splits import read_with_source, splits_of
from runner.errors import DataError
from runner.evaluation import configured, judges, summary
from runner.graders import Grader
from runner.record import graded, run_folders, samples
from runner.record.events import Event, Progress
from runner.record.graded import Answer, AnswerGrade, Asked
from runner.request.keys import Request

AT_ONCE = 128
"""Answers that a model is asked for together, before any is kept; a killed process asks for them again."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The models to evaluate by name, of which the others are compared with the first."""

    request: Request
    respondents: Mapping[str, Respondent]
    rows: Sequence[Asked]
    graders: Sequence[Grader]
    folder: Path


def plan(request: Request, respondents: Mapping[str, Respondent], runs: Path) -> Evaluation:
    """Return what a request asks of some models, with the folder that it belongs to.

    Raises `RequestError` for a grader that cannot work, `DataError` where no row can be asked.
    """
    selection = planning.selection(request)
    held_out = read_with_source(selection, splits_of(selection)[-1])
    rows = samples.rows_to_ask(request, held_out)
    if not rows:
        raise DataError("evaluation.samples: there is no row to ask; set it, dataset.validation or evaluation.prompts.")
    sampling = samples.sampling(request)
    # Graders are not in it: other graders grade the answers that this folder has.
    seen = [[each.identity for each in respondents.values()], list(respondents), [row.row for row in rows], sampling]
    return Evaluation(
        request=request,
        respondents=respondents,
        rows=rows,
        graders=configured.of_request(request),
        folder=run_folders.evaluation(runs, list(respondents)[-1], seen),
    )


def carry_out(evaluation: Evaluation) -> Generator[Event, None, list[AnswerGrade]]:
    """Ask and grade what is left; return all grades. Whatever has been answered or graded is on the disk."""
    folder, keys = evaluation.folder, evaluation.request.evaluation.judge
    folder.mkdir(parents=True, exist_ok=True)
    graded.write(folder / graded.PROBLEMS, evaluation.rows)
    kept, answers = answered(evaluation), list[Answer]()
    for name, respondent in evaluation.respondents.items():
        try:
            answers += yield from _answers(evaluation, name, respondent, kept)
        finally:  # stopped or failed, too: one that was deployed for this costs by the hour
            respondent.close()
    first = next(iter(evaluation.respondents))
    grades = yield from judges.grade_all(folder, evaluation.rows, answers, evaluation.graders, keys, first)
    metrics = {
        name: summary.of_model(grades, evaluation.graders, name, evaluation.rows) for name in evaluation.respondents
    }
    identities = {name: each.identity for name, each in evaluation.respondents.items()}
    names = [each.name for each in evaluation.graders]
    graded.write_evaluation(folder, identities, names, len(evaluation.rows), metrics)
    return grades


def _answers(
    evaluation: Evaluation, name: str, respondent: Respondent, kept: Sequence[Answer]
) -> Generator[Event, None, list[Answer]]:
    """Return a model's answers, those that are not among the ones kept asked now."""
    path, sampling = evaluation.folder / graded.ANSWERS, samples.sampling(evaluation.request)
    known: dict[str, list[Answer]] = {row.row: [] for row in evaluation.rows}
    for each in kept:
        if each.model == name:
            known.setdefault(each.row, []).append(each)
    left = [row for row in evaluation.rows if len(known[row.row]) < sampling.per_prompt]
    # Model by model: one of them may fill the memory, and only one is loaded at a time.
    together = max(1, AT_ONCE // sampling.per_prompt)
    before, total = len(evaluation.rows) - len(left), len(evaluation.rows)
    if left:  # said now: the rate is counted from here, and the first answers may take minutes
        yield Progress("answer", before, total, what=name)
    for start in range(0, len(left), together):
        part = left[start : start + together]
        replies = respondent.replies([row.given for row in part], sampling)
        with path.open("ab") as file:
            for done, (row, own) in enumerate(zip(part, replies, strict=True), start + 1):
                known[row.row] = samples.answers(name, [row], [own])
                # A row's answers in one write: a kill leaves all of them or a torn line, which the next start cuts off.
                file.write(msgspec.json.Encoder().encode_lines(known[row.row]))
                file.flush()
                # Of a list all are there at once: counted one by one, the first would seem to have taken all the time.
                if not isinstance(replies, list) or done == start + len(part):
                    yield Progress("answer", before + done, total, what=name)
    return [answer for row in evaluation.rows for answer in known[row.row]]


def answered(evaluation: Evaluation) -> Sequence[Answer]:
    """Return the answers that the folder holds already."""
    return graded.read_whole(evaluation.folder / graded.ANSWERS, Answer)
