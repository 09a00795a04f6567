"""`python -m runner.evaluate --calibrate FILE GRADER`: graders next to people's labels, judges next to themselves."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner import api
from runner.errors import DataError, RequestError
from runner.evaluation import calibration
from runner.judging.price import total
from runner.request import check
from tests.emulator import Emulator
from tests.emulator.judge import labels, prefers_first, scores
from tests.evaluation.test_evaluate import command
from tests.judging.emulated import asked
from tests.judging.emulated import cloud as cloud

JUDGED: dict[str, Any] = {
    "type": "score_model", "name": "right", "model": "judge-1", "range": [1, 5], "pass_threshold": 3,
    "input": [{"role": "user", "content": "JUDGE {{ item.answer }}: {{ sample.output_text }}"}],
}  # fmt: skip
LABELLED: dict[str, Any] = {
    "type": "label_model", "name": "tone", "model": "judge-1", "labels": ["kind", "rude"], "passing_labels": ["kind"],
    "input": [{"role": "user", "content": "TONE {{ sample.output_text }}"}],
}  # fmt: skip
PAIRED: dict[str, Any] = {"type": "pairwise", "name": "better", "model": "judge-1"}
EXACT: dict[str, Any] = {
    "type": "string_check", "name": "exact", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
    "operation": "eq",
}  # fmt: skip


def file(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def rows(samples: str, labels: list[Any]) -> list[dict[str, Any]]:
    """Return a row for each letter of `samples`, which is the answer; the right answer is always `a`."""
    return [
        {"prompt": f"{number}?", "answer": "a", "sample": sample, "label": label}
        for number, (sample, label) in enumerate(zip(samples, labels, strict=True))
    ]


def calibrated(folder: Path, content: list[dict[str, Any]], *graders: dict[str, Any]) -> list[calibration.Calibrated]:
    request = check.request(api.composed())
    return calibration.carry_out(calibration.plan(file(folder, content), graders, request))


def test_agreement_and_kappa_are_those_of_the_labels(tmp_path: Path) -> None:
    # the grader passes 8 of 12; people pass 6 of those 8, and 1 of the other 4
    people = [True] * 6 + [False] * 2 + [True] + [False] * 3
    [found] = calibrated(tmp_path, rows("a" * 8 + "b" * 4, people), EXACT)
    by_chance = 8 / 12 * 7 / 12 + 4 / 12 * 5 / 12
    assert found.measures["agreement"].value == pytest.approx(9 / 12)
    assert found.measures["kappa"].value == pytest.approx((9 / 12 - by_chance) / (1 - by_chance))
    assert found.measures["agreement"].low < 9 / 12 < found.measures["agreement"].high
    assert "self_agreement" not in found.measures
    assert found.warnings == ("it has no pass_threshold, so a score of 0.5 and more (of 0 to 1) passes",)


def test_a_judge_is_asked_again_with_another_seed_and_nothing_is_paid_twice(cloud: Emulator, tmp_path: Path) -> None:
    cloud.judge.rule = scores("JUDGE a: a", hit=4, miss=2)
    content = rows("aaaaabbbbbbb", [5, 4, 3, 2, 1, 1, 1, 1, 1, 1, 4, True])
    [found] = calibrated(tmp_path, content, JUDGED)
    # people's numbers pass from 3 on, as the judge's do
    assert found.measures["agreement"].value == pytest.approx(8 / 12)
    assert found.measures["self_agreement"].value == 1
    assert {body.get("seed") for body in asked(cloud)} == {None, calibration.OTHER_SEED}
    before = len(cloud.requests)
    assert before == 2 * 2  # the question holds the answer alone, a or b, and each is asked with two seeds
    assert calibrated(tmp_path, content, JUDGED) == [found]
    assert len(cloud.requests) == before


def test_labels_are_the_judges_own_and_its_position_bias_is_found(cloud: Emulator, tmp_path: Path) -> None:
    cloud.judge.rule = labels("TONE a", hit="kind", miss="rude")
    [found] = calibrated(tmp_path, rows("aabb", ["kind", "rude", "rude", "rude"]), LABELLED)
    assert found.measures["agreement"].value == 0.75
    cloud.judge.rule = prefers_first
    pairs = [
        {"prompt": f"{number}?", "sample": f"one {number}", "other": f"two {number}", "label": label}
        for number, label in enumerate(["sample", "other", "tie"] * 4)
    ]
    [found] = calibrated(tmp_path, pairs, PAIRED)
    assert found.measures["order_changed"].value == 1
    assert found.measures["first_preferred"].value == 1
    assert found.measures["agreement"].value == pytest.approx(4 / 12)  # a verdict that the order changes is a tie


@pytest.mark.parametrize(
    ("row", "grader", "message"),
    [
        ({"sample": "a"}, EXACT, "labelled.jsonl:1: grader exact needs `label`; a row has sample, label."),
        ({"label": True}, EXACT, "labelled.jsonl:1: grader exact needs `sample`"),
        ({"sample": "a", "label": "good"}, EXACT, "label: got 'good'; allowed: true (the answer passes), false."),
        (
            {"sample": "a", "label": "nice"},
            LABELLED,
            "label: got 'nice'; allowed: true (the answer passes), false, kind",
        ),
        ({"sample": "a", "label": 4}, EXACT, "a number where the grader has a pass_threshold"),
        ({"sample": "a", "label": "tie"}, PAIRED, "labelled.jsonl:1: grader better needs `other`"),
        ({"sample": "a", "other": "b", "label": 1}, PAIRED, "label: got 1; allowed: sample, other, tie"),
        (
            {"sample": "a", "label": True},
            EXACT,
            "labelled.jsonl:1: grader exact names item.answer, which the row lacks",
        ),
    ],
)
def test_a_row_that_reports_nothing_is_named_by_file_and_line(
    row: dict[str, Any], grader: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        calibrated(tmp_path, [{"prompt": "a?"} | row], grader)
    assert message in str(caught.value)


def test_no_grader_is_a_mistake_of_the_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--calibrate: no grader is named"):
        calibrated(tmp_path, rows("a", [True]))


@pytest.mark.slow
def test_the_command_reports_the_price_first_prints_intervals_and_writes_json(cloud: Emulator, tmp_path: Path) -> None:
    cloud.judge.rule = scores("JUDGE a: a", hit=5, miss=1)
    (tmp_path / "right.json").write_text(json.dumps(JUDGED))
    file(tmp_path, rows("abababababab", [True, False] * 6))
    line = ["--calibrate", "labelled.jsonl", "right.json"]
    priced = ["evaluation.judge.input_price=1000000", "evaluation.judge.output_price=1000000"]
    assert "max_price: got 1" in command(tmp_path, *line, *priced, "max_price=1", ends=2)
    assert cloud.requests == []
    said = command(tmp_path, *line)
    assert "grader right: 4 questions" in said
    assert "agreement 1.000 1.000 to 1.000 12 near that of two people" in " ".join(said.split())
    [found] = json.loads(command(tmp_path, *line, "--json"))
    assert found["grader"] == "right"
    assert found["measures"]["kappa"] == {"value": 1.0, "low": 1.0, "high": 1.0, "rows": 12}


def test_the_price_counts_both_seeds_and_what_is_paid_already(cloud: Emulator, tmp_path: Path) -> None:
    request = check.request(api.composed("evaluation.judge.input_price=1", "evaluation.judge.output_price=1"))
    planned = calibration.plan(file(tmp_path, rows("abc", [True] * 3)), [JUDGED], request)
    before = calibration.prices(planned)
    assert before["right"].questions == 2 * 3
    assert (total(before.values()) or 0) > 0
    calibration.carry_out(planned)
    after = calibration.prices(planned)
    assert (after["right"].questions, after["right"].cached, total(after.values())) == (0, 2 * 3, 0)
