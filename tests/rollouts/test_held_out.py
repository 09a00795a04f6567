"""Held-out rows while a model learns by reward: graders that look on, and a reward that is outwitted."""

from pathlib import Path
from typing import Any

import pytest

from runner import graders, methods
from runner.errors import RequestError
from runner.graders import Grader
from runner.methods.rft import RFT
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record import graded
from runner.record.events import Metrics, Note
from runner.record.graded import AnswerGrade
from runner.rollouts.held_out import HeldOutProblems, watching
from runner.rollouts.sampled import asked
from runner.training.evaluated import EvaluationState
from tests.rollouts.test_rollouts import ROWS, engine_of, keys
from tests.training.driving import reported

LONG = {"type": "length", "name": "long", "unit": "characters", "min": 30, "tolerance": 30}
SHORT = {"type": "length", "name": "short", "unit": "characters", "max": 5, "tolerance": 20}
OTHERS: list[dict[str, Any]] = [
    LONG | {"name": "the reward by another name"},
    {"type": "score_model", "name": "paid", "model": "m", "input": [{"role": "user", "content": "?"}], "range": [0, 1]},
    {"type": "pairwise", "name": "compares", "model": "m", "criteria": "which is better"},
    SHORT,
]


def make(configuration: dict[str, Any]) -> Grader:
    return graders.make(configuration, "here")


def held_out(folder: Path, model: Path, reward: dict[str, Any] = LONG) -> HeldOutProblems:
    hyperparameters, _ = methods.load("rft").resolve(RFT(grader="x", max_new_tokens=6, eval_samples=2), 4)
    return HeldOutProblems(
        folder,
        [asked(row) for row in ROWS],
        ChatTokenizer(model),
        hyperparameters,
        1,
        make(reward),
        [make(SHORT)],
        None,
    )


def test_graders_that_look_on_are_free_and_not_the_reward() -> None:
    assert [each.name for each in watching([make(each) for each in OTHERS], make(LONG))] == ["short"]


@pytest.mark.slow
def test_the_reward_and_the_other_graders_are_measured_on_the_same_answers(tiny_model: Path, tmp_path: Path) -> None:
    engine, rows = engine_of(tiny_model, keys(), tmp_path), held_out(tmp_path, tiny_model)
    events, objective = reported(rows.evaluate(engine, 0, EvaluationState()))
    [values] = [event.values for event in events if isinstance(event, Metrics)]
    assert values["eval/reward"] == -objective
    assert {"eval/short_sampled", "eval/truncated", "eval/answer_tokens", "eval/ungraded"} <= set(values)
    assert engine.sampled == 2 * len(ROWS)
    broken = {"type": "python", "name": "broken", "source": "def grade(sample, item):\n    return item['nothing']"}
    work = held_out(tmp_path / "other", tiny_model, broken).evaluate(engine, 0, EvaluationState())
    with pytest.raises(RequestError, match=r"rft.grader: broken has given no held-out row a score: .*KeyError"):
        reported(work)


def grades(reward: float, short: float, rows: int = 12) -> list[AnswerGrade]:
    return [
        AnswerGrade(model="policy", row=str(row), grader=name, score=score + row / 100)
        for row in range(rows)
        for name, score in (("reward", reward), ("short", short))
    ]


@pytest.mark.parametrize(
    ("before", "after", "warns"),
    [
        (grades(0.2, 0.8), grades(0.7, 0.1), True),
        (grades(0.2, 0.8), grades(0.7, 0.8), False),
        (grades(0.7, 0.8), grades(0.7, 0.1), False),
        (grades(0.2, 0.8, 5), grades(0.7, 0.1, 5), False),  # too few rows
    ],
    ids=["diverging", "the other one stays", "the reward stays", "few rows"],
)
def test_a_reward_that_rises_while_another_grader_falls_is_reported(
    before: list[AnswerGrade], after: list[AnswerGrade], warns: bool, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint_grades" / "step-0"
    folder.mkdir(parents=True)
    graded.write(folder / graded.GRADES, before)
    events, _ = reported(held_out(tmp_path, tiny_model)._diverging(after))
    assert [
        isinstance(event, Note) and "short falls: the model outwits grader long" in event.text for event in events
    ] == [True] * warns
