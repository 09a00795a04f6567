"""Sampled answers as they are kept in a run's folder, before anything is learned from them.

    rollouts/step-00000003/     the answers after 3 rollouts
        sampled.jsonl           the answers to each prompt: tokens, log-probabilities, text; whole or not there
        grades.jsonl            their grades, each on the disk before the next is asked for
        reference_logps.json    the base model's log-probabilities, where `rft.beta` asks for them

A killed run reads what is there: it samples nothing twice, and pays no judge twice. A step learned from again, after
the last checkpoint, is learned from the same answers.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from runner.data.kinds.problem import Problem
from runner.data.rows import Row, row_id
from runner.models.chat.tokenizer import ChatTokenizer, TokenRow
from runner.record import files, graded, layout
from runner.record.events import Event, Graded
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


def asked_at(rows: Sequence[Row], places: Sequence[int]) -> list[Asked]:
    """Return the rows at some places as they are asked."""
    return [asked(problem_of(rows[place])) for place in places]


def asked_of(rows: Sequence[Row], groups: Sequence[Group]) -> list[Asked]:
    """Return the rows that groups of answers belong to, as they are asked."""
    return asked_at(rows, [group.row for group in groups])


def answers_of(rows: Sequence[Asked], groups: Sequence[Group]) -> list[Answer]:
    """Return groups' answers as graders take them, in their order."""
    return [
        answer_of(row, number, each)
        for row, group in zip(rows, groups, strict=True)
        for number, each in enumerate(group.answers)
    ]


def answer_of(row: Asked, number: int, found: SampledAnswer) -> Answer:
    """Return an answer to a row, the one of that number, as graders take it."""
    return Answer(model=POLICY, row=row.row, sample=number, text=found.text, ended=found.ended)


def shown(
    run: Path, folder: Path, step: int, rows: Sequence[Asked], groups: Sequence[Group]
) -> Generator[Event, None, None]:
    """Keep what was asked next to the answers, whose grades are there, and yield that they can be looked at."""
    # A row that a batch has twice is one: its answers would be shown twice for each.
    graded.write(folder / layout.PROBLEMS, {row.row: row for row in rows}.values())
    graded.write(folder / layout.ANSWERS, answers_of(rows, groups))
    yield Graded(step, str(folder.relative_to(run)))


def kept(path: Path, draw: Callable[[], list[Group]]) -> Sequence[Group]:
    """Return the answers that a file keeps; where there is none they are drawn now, and kept before they are used."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        graded.write(path, draw())
    return graded.read(path, Group)


def kept_reference(
    path: Path, reference: Callable[[Sequence[TokenRow]], list[list[float]]]
) -> Callable[[Sequence[TokenRow]], list[list[float]]]:
    """Return what keeps the reference's log-probabilities of a rollout, so that no step asks for them again."""

    def logps(rows: Sequence[TokenRow]) -> list[list[float]]:
        if not path.exists():
            files.write(path, msgspec.json.encode(reference(rows)))
        return msgspec.json.decode(path.read_bytes(), type=list[list[float]])

    return logps


def sample(
    engine: Engine, tokenizer: ChatTokenizer, rows: Sequence[int], prompts: Sequence[list[int]],
    sampling: Callable[[int], Sampling], on_answer: Callable[[int, int, SampledAnswer], None],
) -> list[Group]:  # fmt: skip
    """Return answers to the prompts of some rows. `sampling` has a seed for each time that a prompt occurs again.

    `on_answer` hears of an answer that is drawn now when it is there: its prompt's place, its number, the answer.

    An answer is drawn by seed, prompt and the number of the sample, whatever is computed with it; so the second of
    two rows with one prompt needs another seed to have answers of its own.
    """
    found: dict[int, list[Sampled]] = {}
    left, turn = list(range(len(prompts))), 0
    while left:
        # The first of each prompt in this turn; the others wait for the next one.
        first = {tuple(prompts[place]): place for place in reversed(left)}
        places = sorted(first.values())
        passed_on = partial(_passed_on, tokenizer, places, on_answer)
        found |= zip(
            places, engine.sample([prompts[place] for place in places], sampling(turn), passed_on), strict=True
        )
        left, turn = [place for place in left if place not in found], turn + 1
    return [
        Group(row, prompt, [_answer(tokenizer, each) for each in found[place]])
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True))
    ]


def _passed_on(
    tokenizer: ChatTokenizer, places: Sequence[int], on_answer: Callable[[int, int, SampledAnswer], None],
    at: int, number: int, found: Sampled,
) -> None:  # fmt: skip
    on_answer(places[at], number, _answer(tokenizer, found))


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
