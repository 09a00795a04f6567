"""What lm-evaluation-harness returns becomes metrics with their errors, and rows that compare one by one."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from runner import api, planning
from runner.backends import Respondent
from runner.errors import RequestError
from runner.evaluation import benchmark
from runner.evaluation.benchmark import measured
from runner.evaluation.benchmark.measured import BenchmarkMetric
from runner.evaluation.models import Endpoint
from runner.judging.keys import JudgeKeys
from runner.record.samples import Reply
from runner.request import check


def sample(number: int, filter: str, **values: Any) -> dict[str, Any]:
    return {
        "doc_id": number, "doc": {}, "doc_hash": f"hash {number}", "target": "7", "filter": filter,
        "arguments": [("the whole prompt", {})], "resps": [[f"It is {number}."]], "metrics": list(values), **values,
    }  # fmt: skip


def chosen(number: int) -> dict[str, Any]:
    return {
        "doc_id": number, "doc": {}, "doc_hash": "h", "target": 1, "filter": "none", "metrics": ["acc", "bytes"],
        "arguments": [("prompt", " even"), ("prompt", " odd")], "resps": [[(-1.0, True)], [(-3.0, False)]],
        "acc": 0.0, "bytes": (-4.0, 12),
    }  # fmt: skip


FOUND: dict[str, Any] = {
    "results": {
        "sum": {"alias": "sum", "exact_match,strict": 0.5, "exact_match_stderr,strict": 0.25,
                "exact_match,flexible match": 1.0, "exact_match_stderr,flexible match": "N/A", "sample_len": 2},
        "parity": {"acc,none": 0.0, "acc_stderr,none": 0.0, "bytes,none": 1.5},
    },
    "n-samples": {"sum": {"original": 9, "effective": 2}, "parity": {"original": 1, "effective": 1}},
    "higher_is_better": {"sum": {"exact_match": True}, "parity": {"acc": True, "bytes": False}},
    "samples": {
        "sum": [sample(0, "strict", exact_match=1.0), sample(1, "strict", exact_match=0.0),
                sample(0, "flexible match", exact_match=1.0), sample(1, "flexible match", exact_match=1.0)],
        "parity": [chosen(0)],
    },
}  # fmt: skip
PROMPTS = {"sum": {0: "3 + 4?", 1: "2 + 5?"}, "parity": {0: "Is 3 even?"}}


def test_each_metric_has_its_standard_error_and_its_rows() -> None:
    metrics = measured.measurement("m", FOUND, PROMPTS).metrics
    assert metrics[0] == BenchmarkMetric(
        model="m",
        task="sum",
        metric="exact_match,strict",
        value=0.5,
        stderr=0.25,
        rows=2,
        name="sum.exact_match.strict",
    )
    assert [(each.name, each.value, each.stderr) for each in metrics[1:]] == [
        ("sum.exact_match.flexible-match", 1.0, None), ("parity.acc", 0.0, 0.0), ("parity.bytes", 1.5, None),
    ]  # fmt: skip


def test_filters_of_one_answer_are_scores_of_one_row_and_what_is_no_score_is_left_out() -> None:
    problems, answers, grades = measured.graded_rows([measured.measurement("m", FOUND, PROMPTS)])
    assert [each.prompt[0].content for each in problems] == ["3 + 4?", "2 + 5?", "Is 3 even?"]
    assert [each.text for each in answers] == ["It is 0.", "It is 1.", "even"]
    assert [each.fields["reference"] for each in problems] == ["7", "7", "odd"]
    assert [(each.grader, each.score) for each in grades] == [
        ("sum.exact_match.strict", 1.0), ("sum.exact_match.strict", 0.0),
        ("sum.exact_match.flexible-match", 1.0), ("sum.exact_match.flexible-match", 1.0), ("parity.acc", 0.0),
    ]  # fmt: skip


def test_a_row_is_the_same_whichever_model_is_measured() -> None:
    one, other = (measured.measurement(name, FOUND, PROMPTS) for name in "ab")
    assert [row.row for row in one.rows] == [row.row for row in other.rows]
    problems, answers, _ = measured.graded_rows([one, other])
    assert (len(problems), len(answers)) == (3, 6)


class Mute:
    """A model that can only be asked."""

    identity = "mute"

    def replies(self, prompts: Any, sampling: Any) -> Any:
        yield from ([Reply("")] for _ in prompts)


ENDPOINT = Endpoint(JudgeKeys(url="http://127.0.0.1:9/v1"), "m")


# Not importorskip: the harness sets a variable of the environment while it is imported.
@pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed")
@pytest.mark.parametrize(
    ("model", "tasks", "message"),
    [
        (Mute(), ["sum"], "harness: there cannot be measured by benchmarks; allowed: models that are loaded here"),
        (ENDPOINT, ["none.yaml"], "harness: none.yaml not found; name a task, its YAML file, or a folder"),
        (ENDPOINT, ["."], "harness: . holds no *.yaml; each task is one such file."),
    ],
)
def test_what_cannot_be_measured_is_reported_before_anything_is_loaded(
    model: Respondent, tasks: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = check.request(api.composed(f"harness=[{','.join(tasks)}]"))
    with pytest.raises(RequestError) as caught:
        benchmark.plan(request, {"there": model}, tmp_path)
    assert str(caught.value).startswith(message)


def test_a_missing_package_is_a_sentence_with_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as find_spec finds a package that is not installed
    request = check.request(api.composed("harness=[gsm8k]"))
    with pytest.raises(RequestError, match=r"needs lm_eval, which is not installed; pip install 'runner\[harness\]'"):
        benchmark.plan(request, {"there": ENDPOINT}, tmp_path)


def test_a_run_does_not_pass_over_benchmarks_in_silence() -> None:
    with pytest.raises(RequestError, match=r"harness: benchmarks are run by python -m runner\.evaluate"):
        planning.make(check.request(api.composed("harness=[gsm8k]")))
