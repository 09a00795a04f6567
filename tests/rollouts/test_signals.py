"""What rewards say before money is lost: nothing to learn from, answers without a grade, a reward that is a length."""

import random

import pytest

from runner.record.graded import AnswerGrade
from runner.rollouts import signals
from runner.rollouts.sampled import Group, SampledAnswer


def group(*texts: str) -> Group:
    return Group(0, [5, 6], [SampledAnswer([7] * len(text), [-0.5] * len(text), text != "cut", text) for text in texts])


def grade(score: float | None, error: str = "", **parts: float) -> AnswerGrade:
    return AnswerGrade(model="policy", row="r", grader="near", score=score, error=error, parts=parts)


def test_figures_are_means_over_answers_and_those_without_a_grade_have_no_reward() -> None:
    grades = [grade(1.0, right=1.0), grade(None, "no number"), grade(0.5, right=0.0)]
    found = signals.figures([group("ab", "cut"), group("a")], grades)
    assert found == {
        "reward": 0.75, "reward_right": 0.5, "ungraded": pytest.approx(1 / 3), "answer_tokens": 2.0,
        "truncated": pytest.approx(1 / 3), "entropy": pytest.approx(0.5),
    }  # fmt: skip
    assert signals.by_group([group("ab", "cut"), group("a")], grades) == [[1.0, None], [0.5]]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_reward_for_every_answer_is_reported_with_its_value(value: float) -> None:
    reported = signals.no_spread([[value, value], [value, None]])
    assert reported == (
        f"all 4 answers have the reward {value:g}: nothing is learned; take a grader with finer scores, or other "
        "prompts"
    )


def test_groups_that_differ_only_from_each_other_have_nothing_to_learn_from() -> None:
    assert signals.no_spread([[0.0, 0.0], [1.0, 1.0]]).startswith(
        "in each of 2 groups all answers have the same reward"
    )
    assert signals.no_spread([[0.0, 0.0], [1.0, 0.5]]) == ""
    assert signals.without_spread([[0.0, 0.0], [1.0, 0.5]]) == 0.5


def test_answers_without_a_grade_are_counted_and_the_first_error_is_reported() -> None:
    reported = signals.ungraded("near", [grade(1.0), grade(None, "KeyError: 'reference'"), grade(None, "boom")])
    assert reported == "grader near gave no grade to 2 of 3 answers, which are left out: KeyError: 'reference'"
    assert signals.ungraded("near", [grade(1.0)]) == ""


def texts(count: int) -> list[str]:
    drawn = random.Random(3)
    return [" ".join(["word"] * drawn.randint(1, 9)) for _ in range(count)]


def test_a_reward_that_goes_by_length_alone_is_reported() -> None:
    said = texts(64)
    reported = signals.by_length(said, [1 / len(text.split()) for text in said])
    assert reported.startswith("the number of words alone decides the reward (100% of its variance)")


def test_a_reward_that_also_goes_by_something_else_is_not_taken_for_a_length() -> None:
    said, drawn = texts(64), random.Random(4)
    assert signals.by_length(said, [1 / len(text.split()) + drawn.random() / 2 for text in said]) == ""
    assert signals.by_length(said, [0.5] * 64) == "", "no spread is another warning"
    assert signals.by_length(said[:10], [1 / len(text.split()) for text in said[:10]]) == "", "too few to judge"
    # Each length once: any reward could be said to follow it.
    alone = ["a" * number for number in range(1, 40)]
    assert signals.by_length(alone, [number % 7 / 7 for number in range(1, 40)]) == ""
