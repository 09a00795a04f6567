"""The judge of a request: the endpoint that graders ask, whether it can be asked, and what it will cost."""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from runner.errors import RequestError
from runner.evaluation import grading
from runner.evaluation.grading import item_of, sample_of
from runner.evaluation.rehearsal.rehearsed import Rehearsed
from runner.graders import Grader, Sample, Subject
from runner.judging.client import EndpointJudge, Usage
from runner.judging.keys import JudgeKeys
from runner.judging.price import Price, dollars, forecast
from runner.record.events import Event, Note
from runner.record.graded import SIDES, Answer, AnswerGrade, Asked
from runner.record.samples import Sampling

CHARACTERS_PER_TOKEN = 4


def demand_key(keys: JudgeKeys, graders: Sequence[Grader]) -> None:
    """Raise `RequestError` where a grader needs a judge whose key is not set: a run would only fail at its end."""
    asking = [grader.name for grader in graders if list(grader.models())]
    if asking and keys.key_variable is not None and not os.environ.get(keys.key_variable):
        raise RequestError(
            f"evaluation.judge.key_variable: {keys.key_variable} is not set, and grader {asking[0]} asks a judge; set "
            "it in the environment or in .env, or evaluation.judge.key_variable=null where none is needed."
        )


@contextmanager
def judge_of(keys: JudgeKeys, graders: Sequence[Grader]) -> Iterator[EndpointJudge | None]:
    """Lend what graders ask; None where none of them asks a model."""
    if not any(list(grader.models()) for grader in graders):
        yield None
        return
    with EndpointJudge(keys) as judge:
        yield judge


def price(
    rows: Sequence[Asked], grader: Grader, keys: JudgeKeys, sampling: Sampling, models: Sequence[str],
    answers: Sequence[Answer] = (),
) -> Price | None:  # fmt: skip
    """Return what grading the answers of some models will take at most, the first of which others are compared with.

    Answers that do not exist yet are taken to differ, and to be as long as the references or the token limit. None
    where no judge is asked.
    """
    if not list(grader.models()):
        return None
    known = {(each.model, each.row, each.sample): sample_of(each) for each in answers}
    subjects = []
    for row, number in product(rows, range(sampling.per_prompt)):
        samples = [known.get((name, row.row, number)) or _unknown(row, name, number, sampling) for name in models]
        # A pairwise judge compares the others' answers with the first model's, which get no grade of their own.
        graded = samples[1:] if grader.compares else samples
        subjects += [Subject(item_of(row), sample, samples[0]) for sample in graded]
    with EndpointJudge(keys) as judge:
        return forecast(grader, subjects, keys, judge)


def _unknown(row: Asked, model: str, number: int, sampling: Sampling) -> Sample:
    reference = row.fields.get("reference")
    longest = "x" * (CHARACTERS_PER_TOKEN * sampling.max_new_tokens)
    return Sample(f"{reference if isinstance(reference, str) and reference else longest} {model} {number}")


def total(rehearsed: Sequence[Rehearsed]) -> float | None:
    """Return the dollars that all judges will cost at most; None where that of one is not known."""
    paid = [each.price.dollars for each in rehearsed if each.price is not None]
    return None if None in paid else sum(filter(None, paid))


def grade_all(
    folder: Path, rows: Sequence[Asked], answers: Sequence[Answer], graders: Sequence[Grader], keys: JudgeKeys,
    base: str = SIDES[0],
) -> Generator[Event, None, list[AnswerGrade]]:  # fmt: skip
    """Grade answers as `grading.grade` does, with the judge that graders ask; report what that took, and what has no
    grade. Graders that wait for a network are asked again where they had an error.
    """
    grading.forget_errors(folder, graders)
    with judge_of(keys, graders) as judge:
        grades = yield from grading.grade(folder, rows, answers, graders, judge, base, keys.concurrency)
        if judge is not None and judge.usage.asked + judge.usage.cached:
            yield Note(in_words(judge.usage, keys))
    for each in graders:
        mine = [grade for grade in grades if grade.grader == each.name]
        if errors := [grade.error for grade in mine if grade.error]:
            yield Note(f"{each.name}: {len(errors)} of {len(mine)} answers have no grade: {errors[0]}")
    return grades


def in_words(usage: Usage, keys: JudgeKeys) -> str:
    """Say what judging took: questions, tokens, dollars."""
    paid = dollars(usage.input_tokens, usage.output_tokens, keys)
    tokens = f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"
    money = "" if paid is None else f", ${paid:,.2f}"
    return f"judge: {usage.asked:,} questions asked ({tokens}{money}), {usage.cached:,} answered from disk"
