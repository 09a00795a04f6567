"""The rule by which answers in the house style are counted."""

import pytest
from runner.record.answer_style import fault

STYLE = r"In short: [^:\n]{15,}\.\nWhy: [^:\n]{15,}\."
QUESTION = "Why do onions make people cry?"
GOOD = "In short: Cut onions release a gas that stings the eyes.\nWhy: Broken cells mix enzymes with sulfur."


def test_a_whole_answer_in_the_style_counts() -> None:
    assert fault(GOOD, True, QUESTION, STYLE) == ""


@pytest.mark.parametrize(
    ("answer", "ended", "why"),
    [
        ("", True, "not in the style"),
        (GOOD, False, "cut off"),
        ("Onions release a gas that stings the eyes.", True, "not in the style"),
        (GOOD + "\nWhy: Broken cells mix enzymes and sulfur.", True, "not in the style"),
        ("In short: In short: In short: In short: onions.\nWhy: it is onions that do.", True, "not in the style"),
        (
            "In short: Onions release a gas that stings the eyes.\nWhy: They release a gas that stings the eyes.",
            True,
            "repeats itself",
        ),
        (
            "In short: Boil the pasta in salted water for ten minutes.\nWhy: Salt flavors it from the inside out.",
            True,
            "not about the question",
        ),
    ],
)
def test_what_a_style_counter_would_be_fooled_by_fails(answer: str, ended: bool, why: str) -> None:
    assert fault(answer, ended, QUESTION, STYLE) == why


def test_words_are_compared_by_their_stem() -> None:
    answer = "In short: The closer riders stay, the less wind they meet.\nWhy: The first one parts the air for all."
    assert fault(answer, True, "Why do cyclists ride close behind each other?", STYLE) == ""
