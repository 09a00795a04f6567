"""string_check: equal, not equal, contained, contained whatever the case."""

import pytest

from runner.errors import RequestError
from tests.graders.asking import ANSWER, graded, grader, score


@pytest.mark.parametrize(
    ("operation", "text", "value"),
    [
        ("eq", "Paris", 1.0),
        ("eq", "paris", 0.0),
        ("eq", "Paris ", 0.0),
        ("ne", "Paris", 0.0),
        ("ne", "Rome", 1.0),
        ("like", "It is Paris.", 1.0),
        ("like", "It is paris.", 0.0),
        ("like", "Par", 0.0),
        ("ilike", "It is PARIS.", 1.0),
        ("ilike", "It is Rome.", 0.0),
    ],
)
def test_an_answer_is_compared_with_the_reference(operation: str, text: str, value: float) -> None:
    made = grader("string_check", input=ANSWER, reference="{{ item.answer }}", operation=operation)
    assert score(made, text, answer="Paris") == value


def test_the_reason_shows_both_texts_shortened() -> None:
    made = grader("string_check", input=ANSWER, reference="{{ item.answer }}", operation="eq")
    assert graded(made, "Rome", answer="Paris").reason == "'Rome' is not 'Paris'"
    assert len(graded(made, "x" * 10_000, answer="Paris").reason) < 100


def test_the_name_of_a_called_tool_is_checked_as_in_the_guide() -> None:
    from runner.graders import Sample, Subject

    made = grader(
        "string_check", input="{{ sample.output_tools[0].function.name }}", reference="get_weather", operation="eq"
    )
    called = Sample("", tool_calls=[{"type": "function", "function": {"name": "get_weather", "arguments": "{}"}}])
    assert made.grade(Subject({}, called)).score == 1.0
    assert made.grade(Subject({}, Sample("Sunny."))).score is None


def test_a_missing_value_is_an_error_and_no_score() -> None:
    made = grader("string_check", input=ANSWER, reference="{{ item.answer }}", operation="eq")
    grade = graded(made, "Paris")
    assert (grade.score, grade.error) == (None, "item.answer is missing")


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        ({"operation": "equals"}, "Invalid enum value 'equals' - at `$.operation`"),
        ({"reference": "{{ answer }}"}, "allowed in braces are item.KEY and sample.KEY"),
        ({"referense": "x"}, "unknown field `referense`"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(fields: dict[str, str], reported: str) -> None:
    with pytest.raises(RequestError) as error:
        grader("string_check", **({"input": ANSWER, "reference": "x", "operation": "eq"} | fields))
    assert reported in str(error.value)
    assert str(error.value).startswith("evaluation.graders[0]: ")
