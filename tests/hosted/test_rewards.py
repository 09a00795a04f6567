"""What a hosted job is sent of a grader, and what it is known to refuse."""

from typing import Any

import pytest

from runner import graders
from runner.errors import AccessError
from runner.hosted import rewards

SAME: dict[str, Any] = {
    "type": "string_check", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}", "operation": "eq",
}  # fmt: skip
SOURCE = "def grade(sample, item):\n    return 1.0\n"
OURS: dict[str, Any] = {"type": "python", "source": SOURCE, "timeout": 3, "memory": 512}
ENDPOINT: dict[str, Any] = {"type": "endpoint", "url": "https://h/g", "headers": {"Authorization": "Bearer $GRADER"}}
MULTI: dict[str, Any] = {
    "type": "multi", "name": "both", "graders": {"right": SAME, "code": OURS}, "calculate_output": "right * code",
    "pass_threshold": 0.5,
}  # fmt: skip


def made(configuration: dict[str, Any]) -> graders.Grader:
    return graders.make(configuration, "rft.grader")


def test_a_multi_is_sent_as_plain_objects_by_key_each_with_a_name_and_without_our_own_fields() -> None:
    assert rewards.wire(made(MULTI)) == {
        "type": "multi",
        "name": "both",
        "pass_threshold": 0.5,
        "calculate_output": "right * code",
        "graders": {
            "right": {**SAME, "name": "right"},
            "code": {"type": "python", "name": "code", "source": SOURCE},
        },
    }


def test_what_is_set_and_not_sent_is_named() -> None:
    found = list(rewards.not_sent(made(MULTI), "rft.grader"))
    assert found == ["rft.grader.graders.code.timeout", "rft.grader.graders.code.memory"]
    assert list(rewards.not_sent(made(SAME), "rft.grader")) == []


@pytest.mark.parametrize("within", [False, True])
def test_a_secret_is_sent_as_it_is_and_described_by_its_name(within: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    grader = made({**MULTI, "graders": {"right": SAME, "code": ENDPOINT}} if within else ENDPOINT)
    monkeypatch.setenv("GRADER", "hidden")
    assert "hidden" not in str(rewards.described(grader))
    assert "Bearer $GRADER" in str(rewards.described(grader))
    assert "Bearer hidden" in str(rewards.wire(grader))
    monkeypatch.delenv("GRADER")
    with pytest.raises(AccessError, match="GRADER: not set"):
        rewards.wire(grader)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pattern": ({"type": "pattern", "pattern": "."}, "rft.grader: got type pattern, which hosted"),
    "length": ({"type": "length", "max": 3}, "rft.grader: got type length, which hosted"),
    "json_schema": ({"type": "json_schema", "schema": {}}, "rft.grader: got type json_schema, which hosted"),
    "pairwise": ({"type": "pairwise", "model": "m"}, "rft.grader: got type pairwise, which hosted"),
    "label_model": (
        {"type": "label_model", "model": "m", "labels": ["a", "b"], "passing_labels": ["a"],
         "input": [{"role": "user", "content": "{{ sample.output_text }}"}]},
        "rft.grader: got type label_model, which hosted",
    ),
    "within a multi": (
        {**MULTI, "graders": {"right": SAME, "code": {"type": "length", "max": 3}}},
        "rft.grader.graders.code: got type length, which hosted",
    ),
    "a multi of one": (
        {**MULTI, "graders": {"right": SAME}, "calculate_output": "right"},
        "rft.grader.graders: got one grader; hosted",
    ),
}  # fmt: skip


@pytest.mark.parametrize("refused", REFUSED)
def test_what_a_hosted_job_does_not_know_is_refused_with_what_it_does(refused: str) -> None:
    configuration, reported = REFUSED[refused]
    [found] = rewards.refusals(made(configuration), "rft.grader")
    assert found.startswith(reported)


@pytest.mark.parametrize("configuration", [SAME, OURS, ENDPOINT, MULTI])
def test_what_a_hosted_job_knows_is_not_refused(configuration: dict[str, Any]) -> None:
    assert list(rewards.refusals(made(configuration), "rft.grader")) == []
