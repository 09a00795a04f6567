"""The judge of a request: the endpoint that graders ask, whether it can be asked, and what it will cost."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runner.errors import RequestError
from runner.evaluation.grading import item_of
from runner.evaluation.rehearsed import Rehearsed
from runner.graders import Grader, Sample, Subject
from runner.judging.client import EndpointJudge, Usage
from runner.judging.keys import JudgeKeys
from runner.judging.price import Price, dollars, forecast
from runner.record.graded import Asked
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


def price(rows: Sequence[Asked], grader: Grader, keys: JudgeKeys, sampling: Sampling, num_models: int) -> Price | None:
    """Return what grading the answers of so many models will take at most; None where no judge is asked.

    Answers that do not exist yet are as long as the references, or as the token limit.
    """
    if not list(grader.models()):
        return None
    # A pairwise judge sees the base model's answers beside the others', and gives them no grade of their own.
    counted = 1 if grader.compares else num_models
    longest = "x" * (CHARACTERS_PER_TOKEN * sampling.max_new_tokens)
    subjects = []
    for row in rows:
        reference = row.fields.get("reference")
        text = reference if isinstance(reference, str) and reference else longest
        for number in range(counted * sampling.per_prompt):  # each answer is taken to be another one
            subjects.append(Subject(item_of(row), Sample(f"{text} {number}"), Sample(f"{text} other {number}")))
    with EndpointJudge(keys) as judge:
        return forecast(grader, subjects, keys, judge)


def total(rehearsed: Sequence[Rehearsed]) -> float | None:
    """Return the dollars that all judges will cost at most; None where that of one is not known."""
    paid = [each.price.dollars for each in rehearsed if each.price is not None]
    return None if None in paid else sum(filter(None, paid))


def told(usage: Usage, keys: JudgeKeys) -> str:
    """Say what judging took: questions, tokens, dollars."""
    paid = dollars(usage.input_tokens, usage.output_tokens, keys)
    tokens = f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"
    money = "" if paid is None else f", ${paid:,.2f}"
    return f"judge: {usage.asked:,} questions asked ({tokens}{money}), {usage.cached:,} answered from disk"
