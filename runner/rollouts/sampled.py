"""Sampled answers as they are kept in a run's folder, before anything is learned from them.

    rollouts/step-00000003/     the answers after 3 rollouts
        sampled.jsonl           the answers to each prompt: tokens, log-probabilities, text; whole or not there
        grades.jsonl            their grades, each on the disk before the next is asked for

A killed run reads what is there: it samples nothing twice, and pays no judge twice. A step learned from again, after
the last checkpoint, is learned from the same answers.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import msgspec

from runner.data.kinds.problem import Problem
from runner.data.rows import Row, row_id
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record import graded
from runner.record.events import Event
from runner.record.graded import Answer, Asked
from runner.record.samples import Sampling
from runner.training.engine import Engine, Sampled

POLICY = "policy"
"""What the model that learns is called in answers and grades."""
Result = TypeVar("Result")


class SampledAnswer(msgspec.Struct, frozen=True):
    """An answer: its tokens with the end, the log-probability of each, whether it ended by itself, and its text."""

    ids: list[int]
    logps: list[float]
    ended: bool
    text: str


class Group(msgspec.Struct, frozen=True):
    """The answers to the prompt of a row, which has that number in its split."""

    row: int
    prompt: list[int]
    answers: list[SampledAnswer]


def problem_of(row: Row) -> Problem:
    """Return a row as a problem; a method that is graded has no others."""
    problem = Problem.of(row)
    assert problem is not None, "every row can be asked"
    return problem


def asked(problem: Problem, source: str = "") -> Asked:
    """Return a problem as graders and an evaluation know it, with its source of a mixture."""
    # By all of its keys: the same prompt with another reference is another row.
    return Asked(
        row=row_id(problem).hex(), prompt=problem.prompt, fields=problem.reference, tools=problem.tools,
        source=source,
    )  # fmt: skip


def answers_of(rows: Sequence[Asked], groups: Sequence[Group]) -> list[Answer]:
    """Return groups' answers as graders take them, in their order."""
    return [
        Answer(model=POLICY, row=row.row, sample=number, text=each.text, ended=each.ended)
        for row, group in zip(rows, groups, strict=True)
        for number, each in enumerate(group.answers)
    ]


def kept(path: Path, draw: Callable[[], list[Group]]) -> Sequence[Group]:
    """Return the answers that a file keeps; where there is none they are drawn now, and kept before they are used."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        graded.write(path, draw())
    return graded.read(path, Group)


def sample(
    engine: Engine, tokenizer: ChatTokenizer, rows: Sequence[int], prompts: Sequence[list[int]],
    sampling: Callable[[int], Sampling],
) -> list[Group]:  # fmt: skip
    """Return answers to the prompts of some rows. `sampling` has a seed for each time that a prompt occurs again.

    An answer is drawn by seed, prompt and the number of the sample, whatever is computed with it; so the second of
    two rows with one prompt needs another seed to have answers of its own.
    """
    found: dict[int, list[Sampled]] = {}
    left, turn = list(range(len(prompts))), 0
    while left:
        # The first of each prompt in this turn; the others wait for the next one.
        first = {tuple(prompts[place]): place for place in reversed(left)}
        places = sorted(first.values())
        found |= zip(places, engine.sample([prompts[place] for place in places], sampling(turn)), strict=True)
        left, turn = [place for place in left if place not in found], turn + 1
    return [
        Group(row, prompt, [_answer(tokenizer, each) for each in found[place]])
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
    ]


def _answer(tokenizer: ChatTokenizer, found: Sampled) -> SampledAnswer:
    return SampledAnswer(list(found.ids), list(found.logps), found.ended, found.text(tokenizer))


def shown_as(event: Event, work: Generator[Event, None, Result]) -> Generator[Event, None, Result]:
    """Run some work and yield one event, again and again, in place of its own ones."""
    # Progress of grading has another step's name, and the terminal would jump between the two.
    with closing(work):
        while True:
            try:
                next(work)
            except StopIteration as end:
                result: Result = end.value
                return result
            yield event
