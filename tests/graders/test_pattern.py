"""pattern: the style that is asked for, and the rules by which an answer in it may still fail."""

import pytest

from runner.errors import RequestError
from tests.graders.asking import grader, subject
from tests.judging.emulated import subject_with_images

STYLE = r"In short: [^:\n]{15,}\.\nWhy: [^:\n]{15,}\."
QUESTION = "Why do onions make people cry?"
GOOD = "In short: Cut onions release a gas that stings the eyes.\nWhy: Broken cells mix enzymes with sulfur."
REPEATED = "In short: Onions release a gas that stings the eyes.\nWhy: They release a gas that stings the eyes."
UNRELATED = "In short: Boil the pasta in salted water for ten minutes.\nWhy: Salt flavors it from the inside out."


@pytest.mark.parametrize("answer", [GOOD, f"  {GOOD}\n"])
def test_a_whole_answer_in_the_style_scores_1(answer: str) -> None:
    grade = grader("pattern", pattern=STYLE).grade(subject(answer, QUESTION))
    assert (grade.score, grade.reason) == (1.0, "")


@pytest.mark.parametrize(
    ("answer", "ended", "why"),
    [
        ("", True, "not in the style"),
        (GOOD, False, "cut off"),
        ("Onions release a gas that stings the eyes.", True, "not in the style"),
        (GOOD + "\nWhy: Broken cells mix enzymes and sulfur.", True, "not in the style"),
        ("In short: In short: In short: In short: onions.\nWhy: it is onions that do.", True, "not in the style"),
        (REPEATED, True, "repeats itself"),
        (UNRELATED, True, "not about the question"),
    ],
)
def test_what_a_style_counter_would_be_fooled_by_scores_0(answer: str, ended: bool, why: str) -> None:
    grade = grader("pattern", pattern=STYLE).grade(subject(answer, QUESTION, ended))
    assert (grade.score, grade.reason) == (0.0, why)


@pytest.mark.parametrize(
    ("switch", "answer", "ended", "why"),
    [
        ("refuse_empty", " ", True, "empty"),
        ("refuse_cut_off", GOOD, False, "cut off"),
        ("refuse_repeated", REPEATED, True, "repeats itself"),
        ("refuse_unrelated", UNRELATED, True, "not about the question"),
    ],
)
def test_each_rule_can_be_switched_off(switch: str, answer: str, ended: bool, why: str) -> None:
    asked = subject(answer, QUESTION, ended)
    others = {"refuse_empty": False, "refuse_cut_off": False, "refuse_repeated": False, "refuse_unrelated": False}
    assert grader("pattern", pattern="(?s).*", **(others | {switch: True})).grade(asked).reason == why
    assert grader("pattern", pattern="(?s).*", **others).grade(asked).score == 1.0


def test_the_text_of_a_question_with_an_image_is_what_an_answer_is_to_be_about() -> None:
    rule = grader("pattern", pattern="(?s).*")
    assert rule.grade(subject_with_images("An oak tree.")).score == 1.0
    assert rule.grade(subject_with_images("Two cars.")).reason == "not about the question"


def test_words_are_compared_by_their_stem() -> None:
    answer = "In short: The closer riders stay, the less wind they meet.\nWhy: The first one parts the air for all."
    asked = subject(answer, "Why do cyclists ride close behind each other?")
    assert grader("pattern", pattern=STYLE).grade(asked).score == 1.0


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(RequestError, match=r"pattern: got '\(', which is no regular expression: missing \)"):
        grader("pattern", pattern="(")
