"""multi: several graders, one formula; an error of a part is never a score."""

import pytest

from runner.errors import RequestError
from runner.graders import Json, Sample, Subject, configuration, make
from tests.graders.asking import ANSWER, graded, grader

RIGHT: dict[str, Json] = {
    "type": "string_check",
    "input": ANSWER,
    "reference": "{{ item.answer }}",
    "operation": "ilike",
}
SHORT: dict[str, Json] = {"type": "length", "max": 2, "tolerance": 4}


def test_the_scores_of_the_parts_are_put_together_and_reported() -> None:
    made = grader("multi", graders={"right": RIGHT, "short": SHORT}, calculate_output="0.8 * right + 0.2 * short")
    grade = graded(made, "It is Paris.", answer="Paris")
    assert grade.score == pytest.approx(0.8 + 0.2 * 0.75)
    assert grade.parts == {"right": 1.0, "short": 0.75}
    assert grade.reason == "short: 3 words"


def test_an_error_of_a_part_is_one_of_the_whole_and_named() -> None:
    made = grader("multi", graders={"right": RIGHT, "short": SHORT}, calculate_output="short")
    grade = graded(made, "Paris")
    assert (grade.score, grade.error, grade.parts) == (None, "right: item.answer is missing", {"short": 1.0})


def test_a_formula_without_a_value_is_an_error() -> None:
    made = grader("multi", graders={"right": RIGHT}, calculate_output="1 / right")
    grade = graded(made, "Rome", answer="Paris")
    assert grade.score is None
    assert grade.error == "calculate_output: 1 / right: float division by zero"


def test_what_parts_say_of_themselves_is_passed_on() -> None:
    code: dict[str, Json] = {"type": "python", "source": "import runner\ndef grade(sample, item): return 1"}
    made = grader("multi", graders={"right": RIGHT, "code": code}, calculate_output="right")
    assert list(made.templates()) == [ANSWER, "{{ item.answer }}"]
    first, *_, last = made.warnings()
    assert first.startswith("graders.code: source, line 1: imports runner")
    assert last.startswith("graders.code: not in calculate_output")
    assert list(made.models()) == []


def test_each_part_is_lent_what_it_needs_until_the_block_ends() -> None:
    code: dict[str, Json] = {"type": "python", "source": "import os\ndef grade(sample, item): return os.getpid()"}
    made = grader("multi", graders={"x": code, "y": code}, calculate_output="abs(x - y)")
    with made.grading(None) as grade:
        first, second = (grade(Subject({}, Sample(""))) for _ in range(2))
    assert first.parts == second.parts, "the processes live as long as the block"
    assert first.score, "each part has its own"


def test_a_multi_waits_for_a_network_or_compares_if_a_part_does() -> None:
    judged: dict[str, Json] = {"type": "pairwise", "model": "judge", "criteria": "Which is shorter?"}
    alone = grader("multi", graders={"right": RIGHT, "short": SHORT}, calculate_output="right * short")
    with_judge = grader("multi", graders={"right": RIGHT, "better": judged}, calculate_output="right * better")
    assert (alone.concurrent, alone.compares, list(alone.models())) == (False, False, [])
    assert (with_judge.concurrent, with_judge.compares, list(with_judge.models())) == (True, True, ["judge"])


def test_a_multi_is_its_configuration() -> None:
    written: dict[str, Json] = {"type": "multi", "graders": {"right": RIGHT}, "calculate_output": "right"}
    assert configuration(make(written, "x")) == written


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"graders": RIGHT}, "graders: got one grader or none; allowed is a key for each: {KEY: {type: …}}."),
        ({"graders": {}}, "graders: got one grader or none; allowed is a key for each: {KEY: {type: …}}."),
        ({"calculate_output": "right + x"}, "calculate_output: got x, which is no grader's key; allowed: right."),
        (
            {"calculate_output": "right +"},
            "calculate_output: column 8: got the end; expected a number, a grader's key, a function or '('.",
        ),
        (
            {"graders": {"right": RIGHT, "is short": SHORT}},
            "graders: the key 'is short' cannot be in a formula; fix: letters, digits and _, no function's.",
        ),
        ({"graders": {"right": "string_check"}}, "graders.right: got 'string_check'; allowed is a grader: {type: …}."),
        (
            {"graders": {"right": {"type": "multi", "graders": {"x": RIGHT}, "calculate_output": "x"}}},
            "graders.right: got a multi within a multi; fix: name its graders here.",
        ),
        (
            {"graders": {"right": {"type": "length", "max": 1, "min": 2}}},
            "graders.right: max: got 1; allowed: at least min, 2.",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(fields: dict[str, Json], error: str) -> None:
    with pytest.raises(RequestError) as reported:
        grader("multi", **({"graders": {"right": RIGHT}, "calculate_output": "right"} | fields))
    assert str(reported.value) == f"evaluation.graders[0]: {error}"
