"""The base model asked before the start (`rehearse=true`): how often it passes, and how much its answers differ.

Reinforcement learns from answers to one prompt that score differently; where all score alike there is nothing to learn
from, and where all pass nothing is left to learn. Answers and grades are kept in the user's cache, and asked for once.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from hashlib import sha256

import msgspec

from runner import backends, cache
from runner.errors import AccessError, ModelError
from runner.evaluation import evaluate, judges, reward
from runner.evaluation.evaluate import Evaluation
from runner.evaluation.rehearsal.rehearsed import SAMPLES, BaseScores
from runner.graders import Grader
from runner.judging.price import Price
from runner.plan import Run
from runner.record import samples
from runner.record.events import Event
from runner.record.graded import AnswerGrade

PROMPTS = 8
"""Rows that are asked."""
BASE = "base"


def plan(run: Run) -> Evaluation | str:
    """Return what is asked of the base model of a run; else why it cannot be asked, as a sentence."""
    request = run.request
    graders = reward.graders_of(run)
    if not graders:
        return "no grader is configured that grades an answer by itself"
    backend = backends.of(run)
    try:
        base = backend.respondent(run.plan.model.source, request.backend)
    except (AccessError, ModelError) as error:
        return f"the base model cannot be asked: {error}"
    if base is None:
        return f"the base model cannot be asked: backend={backend.name} has no way to {run.plan.model.source}"
    keys = replace(reward.evaluation_keys(run), samples_per_prompt=SAMPLES)
    request = replace(request, evaluation=keys)
    rows = samples.rows_to_ask(request, run.held_out())[:PROMPTS]
    if not rows:
        return "evaluation.samples is 0, so there is no row to ask"
    # By content: a sweep over training keys asks the same base model the same prompts, once.
    seen = [base.identity, rows, samples.sampling(request)]
    folder = cache.user_folder() / "rehearsals" / sha256(msgspec.json.encode(seen)).hexdigest()[:24]
    return Evaluation(request=request, respondents={BASE: base}, rows=rows, graders=graders, folder=folder)


def prices(planned: Evaluation) -> dict[str, Price]:
    """Return by grader what its judge will cost, where it asks one."""
    keys, sampling = planned.request.evaluation.judge, samples.sampling(planned.request)
    judges.demand_key(keys, planned.graders)
    found = {each.name: judges.price(planned.rows, each, keys, sampling, [BASE]) for each in planned.graders}
    return {name: price for name, price in found.items() if price is not None}


def carry_out(planned: Evaluation) -> Generator[Event, None, list[BaseScores]]:
    """Ask and grade what is not in the cache yet; return how the base model does by each grader."""
    grades = yield from evaluate.carry_out(planned)
    answers = evaluate.answered(planned)
    length = sum(len(each.text) for each in answers) / len(answers)
    cut_off = sum(not each.ended for each in answers) / len(answers)
    return [
        replace(
            scores(grader, [each for each in grades if each.grader == grader.name]), characters=length, cut_off=cut_off
        )
        for grader in planned.graders
    ]


def scores(grader: Grader, grades: Sequence[AnswerGrade]) -> BaseScores:
    """Return what the grades of a grader say; answers without one are left out."""
    by_row: dict[str, list[float]] = {}
    for grade in grades:
        if grade.score is not None:
            by_row.setdefault(grade.row, []).append(grade.score)
    every = [score for row in by_row.values() for score in row]
    if not every:
        error = grades[0].error if grades else "there is no answer"
        return BaseScores(grader=grader.name, prompts=0, warnings=(f"no answer has a grade: {error}",))
    threshold = grader.passing_score()
    if threshold is None and set(every) <= {0.0, 1.0}:
        threshold = 1.0
    rate = None if threshold is None else sum(score >= threshold for score in every) / len(every)
    varied = sum(len(set(row)) > 1 for row in by_row.values())
    return BaseScores(
        grader=grader.name,
        prompts=len(by_row),
        mean=sum(every) / len(every),
        pass_rate=rate,
        spread=math.sqrt(sum(_variance(row) for row in by_row.values()) / len(by_row)),
        varied=varied,
        warnings=tuple(_odd(rate, varied, len(grades) - len(every), len(grades))),
    )


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)


def _odd(rate: float | None, varied: int, lacking: int, answers: int) -> list[str]:
    """Say what prevents learning by a grader."""
    problems: list[str] = []
    if not varied:
        problems.append(
            "all samples of each prompt score the same: there is nothing to learn from; take other prompts, or a "
            "grader with finer scores"
        )
    if rate == 0:
        problems.append("no answer passes (0 %): the prompts are too hard, or the grader asks for what nobody answers")
    if rate == 1:
        problems.append("every answer passes (100 %): there is nothing left to learn; take harder prompts")
    if lacking:
        problems.append(f"{lacking} of {answers} answers have no grade")
    return problems
