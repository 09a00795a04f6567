"""json_schema: the whole answer is JSON that the schema allows, or scores 0 with the place of the first error."""

import pytest

from runner.errors import RequestError
from runner.graders import Json
from tests.graders.asking import graded, grader

SCHEMA: Json = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}, "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}}},
    "required": ["answer"],
    "additionalProperties": False,
    "$defs": {"step": {"type": "string", "minLength": 1}},
}


@pytest.mark.parametrize("text", ['{"answer": 3}', ' {"answer": 3, "steps": ["a"]}\n'])
def test_an_answer_that_the_schema_allows_scores_1(text: str) -> None:
    grade = graded(grader("json_schema", schema=SCHEMA), text)
    assert (grade.score, grade.reason) == (1.0, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON: Input data was truncated"),
        ("3 apples", "not JSON: JSON is malformed: trailing characters"),
        ('```json\n{"answer": 3}\n```', "not JSON: JSON is malformed: invalid character (byte 0)"),
        ('{"answer": NaN}', "not JSON: JSON is malformed: invalid character (byte 11)"),
        ("[" * 100_000, "not JSON: maximum recursion depth exceeded"),
        ("3", "$: 3 is not of type 'object'"),
        ("{}", "$: 'answer' is a required property"),
        ('{"answer": "3"}', "$.answer: '3' is not of type 'integer'"),
        ('{"answer": 3, "steps": ["a", ""]}', "$.steps[1]: '' should be non-empty"),
        ('{"answer": 3, "more": 1}', "$: Additional properties are not allowed ('more' was unexpected)"),
    ],
    ids=lambda text: text[:20],
)
def test_an_answer_that_it_does_not_allow_scores_0_with_the_place(text: str, reason: str) -> None:
    grade = graded(grader("json_schema", schema=SCHEMA), text)
    assert (grade.score, grade.error) == (0.0, "")
    assert grade.reason.startswith(reason)


@pytest.mark.parametrize(
    ("schema", "reported"),
    [
        ({"type": "text"}, "schema.type: 'text' is not valid under any of the given schemas."),
        ({"properties": {"a": {"minimum": "0"}}}, "schema.properties.a.minimum: '0' is not of type 'number'."),
        ({"$ref": "http://127.0.0.1:9/x"}, "schema: got $ref 'http://127.0.0.1:9/x'; allowed are places in the schema"),
    ],
)
def test_a_schema_that_is_none_is_refused(schema: dict[str, Json], reported: str) -> None:
    with pytest.raises(RequestError) as error:
        grader("json_schema", schema=schema)
    assert str(error.value).startswith(f"evaluation.graders[0]: {reported}")


@pytest.mark.parametrize("target", ["#/$defs/nowhere", "#"])
def test_a_reference_that_leads_nowhere_is_an_error_and_no_score(target: str) -> None:
    grade = graded(grader("json_schema", schema={"$ref": target}), "3")
    assert grade.score is None
    assert grade.error.startswith("schema: ")
