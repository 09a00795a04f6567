"""score_model and label_model: what the judge is asked, what its answer is worth, and what is no score at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner import graders
from runner.errors import RequestError
from runner.graders import Grader, Json
from runner.judging.client import EndpointJudge
from tests.emulator import Emulator, Fault
from tests.emulator.judge import labels, scores
from tests.emulator.local import LocalTraining
from tests.judging.emulated import JUDGE, asked, graded, subject, subject_with_images

INPUT: list[Json] = [
    {"role": "system", "content": "Grade how well the answer says {{ item.topic }}."},
    {
        "role": "user",
        "type": "message",
        "content": [{"type": "input_text", "text": "Answer: {{ sample.output_text }}"}],
    },
]
SCORE: dict[str, Json] = {"type": "score_model", "name": "clear", "model": "gpt-4.1", "input": INPUT}
LABEL: dict[str, Json] = {
    "type": "label_model", "name": "tone", "model": "gpt-4.1", "input": INPUT,
    "labels": ["kind", "neutral", "rude"], "passing_labels": ["kind", "neutral"],
}  # fmt: skip


def score_model(**fields: Any) -> Grader:
    return graders.make({**SCORE, **fields}, "here")


def label_model(**fields: Any) -> Grader:
    return graders.make({**LABEL, **fields}, "here")


def test_the_judge_gets_the_messages_filled_and_the_sampling_in_the_words_of_the_chat_api(
    cloud: Emulator, judge: EndpointJudge
) -> None:
    sampling = {"seed": 7, "temperature": 0.0, "top_p": 0.5, "max_completions_tokens": 99, "reasoning_effort": "low"}
    graded(score_model(sampling_params=sampling), subject("Three days.", topic="bread"), judge)
    (body,) = asked(cloud)
    assert body["messages"] == [
        {"role": "system", "content": "Grade how well the answer says bread."},
        {"role": "user", "content": "Answer: Three days."},
    ]
    del sampling["max_completions_tokens"]
    assert body.items() >= {**sampling, "max_completion_tokens": 99}.items()
    schema = body["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["steps", "result"]
    assert list(schema["properties"]["steps"]["items"]["properties"]) == ["description", "conclusion"]
    assert schema["properties"]["result"]["type"] == "number"


def test_the_judge_reads_where_images_are_and_not_what_they_hold(cloud: Emulator, judge: EndpointJudge) -> None:
    shown: Json = [{"role": "user", "content": "{{ item.messages }} or {{ item.messages[0].content }}"}]
    for grader, rule in (
        (score_model(input=shown), scores("oak")),
        (label_model(input=shown), labels("oak", "kind", "rude")),
    ):
        cloud.judge.rule = rule
        graded(grader, subject_with_images("An oak."), judge)
    text = "Which tree[image] is it?[image]"
    wanted = f'[{{"role": "user", "content": "{text}"}}] or {text}'
    assert [body["messages"][0]["content"] for body in asked(cloud)] == [wanted, wanted]


def test_a_score_within_0_and_1_is_the_judges_with_its_reason(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.judge.rule = scores("Three", hit=0.75, miss=0.25)
    found = graded(score_model(), subject("Three days.", topic="bread"), judge)
    assert (found.score, found.reason, found.error) == (0.75, "the rule says 0.75", "")
    assert graded(score_model(), subject("Ask a baker.", topic="bread"), judge).score == 0.25


@pytest.mark.parametrize(
    ("allowed", "said", "score"),
    [([0, 1], 1.5, 1.0), ([0, 1], -3, 0.0), ([1, 5], 1, 0.0), ([1, 5], 4, 0.75), ([1, 5], 9, 1.0), ([-1, 1], 0, 0.5)],
)
def test_a_score_is_clipped_to_the_range_and_the_range_is_mapped_to_0_and_1(
    cloud: Emulator, judge: EndpointJudge, allowed: list[float], said: float, score: float
) -> None:
    cloud.judge.rule = lambda text: said
    assert graded(score_model(range=allowed), subject("?", topic="x"), judge).score == score


def test_the_threshold_is_in_the_units_of_the_range() -> None:
    assert score_model(range=[1, 5], pass_threshold=4).passing_score() == 0.75
    assert score_model(pass_threshold=0.6).passing_score() == 0.6
    assert score_model().passing_score() is None


@pytest.mark.parametrize("said", [None, "0.5", True, [], {}, "good"])
def test_a_result_that_is_no_number_is_an_error_and_no_score(
    cloud: Emulator, judge: EndpointJudge, said: object
) -> None:
    cloud.judge.rule = lambda text: said
    found = graded(score_model(), subject("?", topic="x"), judge)
    assert found.score is None
    assert found.error.startswith("gpt-4.1: the judge's answer is not of the form asked for: Expected `float`")


@pytest.mark.parametrize(
    ("label", "score"), [("kind", 1.0), ("neutral", 1.0), ("rude", 0.0)],
)  # fmt: skip
def test_a_label_passes_or_not(cloud: Emulator, judge: EndpointJudge, label: str, score: float) -> None:
    cloud.judge.rule = labels("Three", hit=label, miss="?")
    found = graded(label_model(), subject("Three days.", topic="bread"), judge)
    assert (found.score, found.reason) == (score, f"{label}: the rule says {label}")
    result = asked(cloud)[0]["response_format"]["json_schema"]["schema"]["properties"]["result"]
    assert result == {"type": "string", "enum": ["kind", "neutral", "rude"]}


@pytest.mark.parametrize("said", ["friendly", "KIND", "", None, 1])
def test_a_label_that_was_not_asked_for_is_an_error_and_no_score(
    cloud: Emulator, judge: EndpointJudge, said: object
) -> None:
    cloud.judge.rule = lambda text: said
    found = graded(label_model(), subject("?", topic="x"), judge)
    assert (found.score, bool(found.error)) == (None, True)


@pytest.mark.parametrize("make", [score_model, label_model])
@pytest.mark.parametrize(
    ("kind", "reported"),
    [("malformed", "not of the form asked for"), ("truncated", "cut off"), ("refusal", "refuses"),
     ("filtered", "content filter")],
)  # fmt: skip
def test_an_answer_that_cannot_be_read_is_an_error_and_no_score(
    cloud: Emulator, judge: EndpointJudge, make: Callable[[], Grader], kind: str, reported: str
) -> None:
    cloud.inject(Fault(JUDGE, kind))
    found = graded(make(), subject("?", topic="x"), judge)
    assert found.score is None
    assert found.error.startswith("gpt-4.1: ")
    assert reported in found.error


def test_an_endpoint_that_fails_is_an_error_and_no_score(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.inject(Fault(JUDGE, "status", status=429, headers={"Retry-After": "3600"}))
    found = graded(score_model(), subject("?", topic="x"), judge)
    assert (found.score, "asks to wait 3,600 s" in found.error) == (None, True)


def test_a_row_without_what_a_template_names_is_an_error_and_asks_nobody(cloud: Emulator, judge: EndpointJudge) -> None:
    found = graded(score_model(), subject("?"), judge)
    assert (found.score, found.error) == (None, "item.topic is missing")
    assert asked(cloud) == []


@pytest.mark.slow
def test_a_small_model_that_cannot_write_the_form_gives_errors_and_no_scores(
    cloud: Emulator, judge: EndpointJudge, tiny_model: Path, tmp_path: Path
) -> None:
    cloud.judge.rule = None
    with LocalTraining(tmp_path / "jobs", f"path:{tiny_model}") as engine:
        cloud.engine = engine
        found = graded(score_model(), subject("Three days.", topic="bread"), judge)
    assert found.score is None
    assert found.error
    assert judge.usage.asked == 1


def test_a_long_reason_is_shortened(cloud: Emulator, judge: EndpointJudge) -> None:
    said = json.dumps({"steps": [{"description": "d", "conclusion": "so " * 300}], "result": 1})
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
    answer = {"choices": [choice], "id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    cloud.inject(Fault(JUDGE, "status", status=200, body=answer))
    found = graded(score_model(), subject("?", topic="x"), judge)
    assert (found.score, len(found.reason), found.reason[-1]) == (1.0, 300, "…")


def test_without_a_judge_it_is_said_who_is_missing() -> None:
    with pytest.raises(RequestError, match=r"^clear: gpt-4\.1 is to judge, and no judge is configured"):
        graded(score_model(), subject("?"), None)


@pytest.mark.parametrize(
    ("make", "fields", "reported"),
    [(score_model, {"range": [1, 1]}, "range: got 1 to 1; allowed: two numbers, the lower one first"),
     (score_model, {"range": [0, 1, 2]}, "range"),
     (score_model, {"pass_threshold": 2}, "pass_threshold: got 2; allowed: 0 to 1, the range"),
     (score_model, {"input": []}, "input: got no message"),
     (score_model, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input_image"),
     (score_model, {"input": [{"role": "user", "content": "{{ row.x }}"}]}, "row.x"),
     (score_model, {"sampling_params": {"max_completion_tokens": 9}}, "max_completion_tokens"),
     (label_model, {"labels": ["a"], "passing_labels": ["a"]}, "labels: got a; allowed: two or more"),
     (label_model, {"labels": ["a", "a"], "passing_labels": ["a"]}, "labels: got a, a; allowed: two or more"),
     (label_model, {"passing_labels": ["nice"]}, "passing_labels: got nice; allowed: one or more of kind"),
     (label_model, {"passing_labels": []}, "passing_labels: got none")],
)  # fmt: skip
def test_fields_that_cannot_work_are_refused(
    make: Callable[..., Grader], fields: dict[str, Any], reported: str
) -> None:
    with pytest.raises(RequestError) as refused:
        make(**fields)
    assert str(refused.value).startswith("here: ")
    assert reported in str(refused.value)


@pytest.mark.parametrize("make", [score_model, label_model])
def test_a_grader_is_its_configuration(make: Callable[[], Grader]) -> None:
    kept = graders.configuration(make())
    assert graders.make(json.loads(json.dumps(kept)), "here") == make()
    assert kept["input"] == INPUT
    assert list(make().models()) == ["gpt-4.1"]
    assert make().concurrent


def test_a_judge_that_does_not_see_the_answer_is_a_warning() -> None:
    blind = score_model(input=[{"role": "user", "content": "Is it {{ item.topic }}?"}])
    assert list(blind.warnings()) == [
        "input: the judge does not see the answer; fix: {{ sample.output_text }} in a message."
    ]
    assert list(score_model().warnings()) == []
