"""The contract notices what breaks it, in requests and in answers."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.contract import Contract
from tests.emulator.messages import Answer, Request
from tests.emulator.sdk import connected

CREATE = "POST /fine_tuning/jobs"
JOB: dict[str, Any] = {
    "id": "ftjob-1",
    "object": "fine_tuning.job",
    "created_at": 1,
    "model": "gpt-4.1",
    "status": "queued",
    "training_file": "file-1",
    "hyperparameters": {"n_epochs": "auto"},
}
FULL = JOB | {"organization_id": "org", "seed": 0, "result_files": []}


def problems(lax: bool, order: dict[str, Any], job: dict[str, Any]) -> list[str]:
    request = Request("POST", "", {}, {}, json.dumps(order).encode(), 0.0)
    return Contract(lax).violations(CREATE, request, Answer(200, job))


GOOD_ORDER = {"model": "gpt-4.1", "training_file": "file-1", "trainingType": "Standard"}


def test_what_keeps_to_the_types_is_no_violation() -> None:
    assert problems(False, GOOD_ORDER, FULL) == []
    assert problems(True, GOOD_ORDER, JOB | {"status": "pending"}) == []


@pytest.mark.parametrize(
    ("order", "place"),
    [({"model": "gpt-4.1"}, "training_file"), (GOOD_ORDER | {"seed": "0"}, "seed"), (GOOD_ORDER | {"method": 3}, "")],
)
def test_a_wrong_request_is_a_violation(order: dict[str, Any], place: str) -> None:
    found = problems(False, order, FULL)
    assert len(found) == 1
    assert found[0].startswith(f"{CREATE}: request: ")
    assert place in found[0]


@pytest.mark.parametrize("change", [{"status": "dreaming"}, {"created_at": "now"}, {"object": "job"}])
@pytest.mark.parametrize("lax", [False, True])
def test_a_wrong_answer_is_a_violation(lax: bool, change: dict[str, Any]) -> None:
    assert len(problems(lax, GOOD_ORDER, FULL | change)) == 1


def test_only_azure_may_leave_fields_out() -> None:
    assert len(problems(False, GOOD_ORDER, JOB)) == 3
    assert problems(True, GOOD_ORDER, JOB) == []


@pytest.mark.parametrize("style", ["strict", "lax"])
@pytest.mark.parametrize("method", ["dpo", "supervised"])
def test_a_whole_job_keeps_to_the_openapi_description(monkeypatch: pytest.MonkeyPatch, style: str, method: str) -> None:
    pytest.importorskip("jsonschema")
    if "RUNNER_TEST_DATA" not in os.environ:
        pytest.skip("RUNNER_TEST_DATA names no folder with the service's OpenAPI description")
    described = Path(os.environ["RUNNER_TEST_DATA"], "foundry", "openai_finetuning_files.openapi.json")
    with connected(monkeypatch, style, openapi=described) as client:
        assert list(client.openai.files.list()) == []
        job = client.order(method, seed=0, suffix="a1", metadata={"plan": "a1"}, hyperparameters={"n_epochs": 2})
        client.ended(job)
        assert list(client.jobs.list_events(job.id)) != []
        assert list(client.jobs.checkpoints.list(job.id)) != []
        assert len(list(client.jobs.list())) == len(list(client.openai.files.list())) - 1 == 1
        client.openai.files.delete(job.training_file)
