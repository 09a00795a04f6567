"""length: 1 within the bounds, less by each unit beyond them."""

import pytest

from runner.errors import RequestError
from runner.graders import Json
from tests.graders.asking import graded, grader


@pytest.mark.parametrize(
    ("words", "score"), [(0, 0), (2, 0.5), (3, 0.75), (4, 1), (8, 1), (9, 0.75), (11, 0.25), (12, 0), (100, 0)]
)
def test_an_answer_too_short_or_too_long_has_partial_credit(words: int, score: float) -> None:
    made = grader("length", min=4, max=8, tolerance=4)
    grade = graded(made, " ".join(["word"] * words))
    assert (grade.score, grade.reason) == (score, f"{words} words")


def test_without_tolerance_there_is_no_partial_credit() -> None:
    made = grader("length", max=2)
    assert [graded(made, text).score for text in ("one two", "one two three")] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("unit", "text", "count"),
    [
        ("words", " two\n words ", 2),
        ("characters", "  Zürich\n", 6),
        ("sentences", "", 0),
        ("sentences", "No end", 1),
        ("sentences", "Pi is 3.14. Really? Yes!", 3),
        ("sentences", 'He said "Stop." Then he left…', 2),
        ("sentences", "你好。再见！", 2),
    ],
)
def test_units_are_counted(unit: str, text: str, count: int) -> None:
    assert graded(grader("length", unit=unit, min=1), text).reason == f"{count} {unit}"


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        ({}, "min, max: neither is given, so every answer would score 1; fix: give one."),
        ({"min": 3, "max": 2}, "max: got 2; allowed: at least min, 3."),
        ({"max": 2, "tolerance": -1}, "min, tolerance: got 0 and -1; allowed: 0 or more."),
    ],
)
def test_bounds_that_allow_nothing_or_all_are_refused(fields: dict[str, Json], reported: str) -> None:
    with pytest.raises(RequestError) as error:
        grader("length", **fields)
    assert str(error.value) == f"evaluation.graders[0]: {reported}"
