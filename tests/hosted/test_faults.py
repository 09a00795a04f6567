"""Every fault of the service, at each request where it can strike: the right end, and nothing paid for twice."""

import os
import signal
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("azure.ai.projects")

from runner.backends.foundry import connect
from runner.execution import execute
from runner.record.events import StepDone, StepStarted
from runner.record.journal import Record, read
from tests.emulator import Emulator, Fault, Script
from tests.hosted.rehearsal import (
    DEPLOYED,
    IMPATIENT,
    Make,
    Metrics,
    carry_out,
    created_once,
    planned,
    standing,
)

pytestmark = pytest.mark.slow

DATA_PLANE = [
    "GET /files", "POST /files", "GET /files/{id}", "GET /fine_tuning/jobs", "POST /fine_tuning/jobs",
    "GET /fine_tuning/jobs/{id}", "GET /fine_tuning/jobs/{id}/events", "GET /files/{id}/content",
    "GET /fine_tuning/jobs/{id}/checkpoints", "POST /responses",
]  # fmt: skip
CONTROL_PLANE = ["GET deployment", "PUT deployment", "DELETE deployment", "GET deployments"]
SOON = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)

PASSING: dict[str, tuple[str, dict[str, Any]]] = {
    "429": ("status", {"status": 429}),
    "429 with seconds": ("status", {"status": 429, "headers": {"Retry-After": "0.1"}}),
    "429 with a date": ("status", {"status": 429, "headers": {"Retry-After": SOON}}),
    "408": ("status", {"status": 408}),
    "500": ("status", {"status": 500}),
    "502 in html": ("status", {"status": 502, "body": "<html><body><h1>502 Bad Gateway</h1></body></html>"}),
    "503": ("status", {"status": 503}),
    "401 once": ("status", {"status": 401}),
    "reset before": ("reset_before", {}),
    "reset after": ("reset_after", {}),
    "cut": ("cut", {}),
    "slow": ("slow", {"seconds": 1.0}),
}

LASTING: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "401": ("status", {"status": 401}, 2, "the service does not take our token"),
    "403": ("status", {"status": 403}, 2, "the credential lacks a role"),
    "429": ("status", {"status": 429}, 1, "a quota of the service is used up"),
    "500": ("status", {"status": 500}, 1, "the same command continues"),
    "reset": ("reset_before", {}, 1, "the same command continues"),
}


EVERYWHERE = ("500", "reset after", "cut")
"""Faults tried at each kind of request: it was refused; it was carried out and no answer came; half an answer came."""
OF_EACH_KIND = (
    "GET /fine_tuning/jobs/{id}", "POST /files", "POST /fine_tuning/jobs", "GET /files/{id}/content", "POST /responses",
    "PUT deployment", "DELETE deployment",
)  # fmt: skip
"""Requests that read, that must not be repeated, whose answer is a stream, that go to the control plane. The other
GETs are made as the first one is."""
CREATES = "POST /fine_tuning/jobs"
"""Where every fault is tried: to repeat this request without looking is what must never happen."""


def faults_at_requests(faults: Iterable[str], everywhere: tuple[str, ...]) -> Any:
    """Give a test `fault` and `on`, a request: one case per equivalence class; the others are marked `exhaustive`.

    How each status and exception is judged, wherever it strikes, is in test_classification.py.
    """
    return pytest.mark.parametrize(
        ("fault", "on"),
        [
            pytest.param(
                fault, on,
                marks=() if on == CREATES or (fault in everywhere and on in OF_EACH_KIND) else pytest.mark.exhaustive,
            )
            for fault in faults
            for on in (*DATA_PLANE, *CONTROL_PLANE)
        ],
    )  # fmt: skip


@faults_at_requests(PASSING, EVERYWHERE)
def test_a_run_with_a_fault_that_passes_ends_like_a_run_without_it(
    fault: str, on: str, undisturbed: Metrics, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, (kind, details) = make(), PASSING[fault]
    if kind == "slow":
        monkeypatch.setattr(connect, "ANSWER_SECONDS", details["seconds"] / 2)
    cloud.inject(Fault(on, kind, **details))
    ended = carry_out(planned(tmp_path, tmp_path / "runs", DEPLOYED))
    assert ended.code == 0, ended.message
    assert ended.metrics == undisturbed
    assert created_once(cloud), cloud.violations
    assert not standing(cloud)


@faults_at_requests(LASTING, ("500",))
def test_a_fault_that_lasts_ends_the_run_with_a_sentence_and_the_same_command_resumes_it_afterwards(
    fault: str, on: str, make: Make, tmp_path: Path
) -> None:
    cloud, (kind, details, code, sentence) = make(), LASTING[fault]
    lasting = Fault(on, kind, times=None, **details)
    cloud.inject(lasting)
    ended = carry_out(planned(tmp_path, tmp_path / "runs", DEPLOYED, IMPATIENT))
    assert ended.code == code, ended.message
    assert sentence in ended.message
    assert "\n" not in ended.message
    lasting.left = 0
    again = carry_out(planned(tmp_path, tmp_path / "runs", DEPLOYED))
    assert again.folder == ended.folder
    assert again.code == 0, again.message
    assert created_once(cloud), cloud.violations
    assert not standing(cloud)


STEPS = ["upload", "create", "follow", "results", "save", "deploy", "sample", "undeploy"]


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(StepStarted, id="begun"),
        # Between two steps: the next one's beginning is the same place.
        pytest.param(StepDone, id="done", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_at_every_step_stops_nothing_at_the_service(
    step: str, moment: type, undisturbed: Metrics, make: Make, tmp_path: Path
) -> None:
    cloud = make()
    job = planned(tmp_path, tmp_path / "runs", DEPLOYED)

    def press(record: Record) -> None:
        if isinstance(record.event, moment) and record.event.step == step:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGINT)

    stopped = carry_out(job, press)
    if (step, moment) != ("undeploy", StepDone):
        assert stopped.code in (130, 0)  # a step without a safe point before the end ends first
    ended = carry_out(job)
    assert ended.code == 0, ended.message
    assert ended.metrics == undisturbed
    assert created_once(cloud), cloud.violations
    assert not standing(cloud)


def test_ctrl_c_while_following_says_how_to_come_back(cloud: Emulator, tmp_path: Path) -> None:
    cloud.script = Script(running_seconds=600)

    def press(record: Record) -> None:
        if isinstance(record.event, StepStarted) and record.event.step == "follow":
            os.kill(os.getpid(), signal.SIGINT)

    ended = carry_out(planned(tmp_path, tmp_path / "runs"), press)
    assert ended.code == 130
    (job,) = cloud.jobs
    assert f"{job} continues at the service" in ended.message
    assert "python -m runner.watch" in ended.message
    assert not any(request.path.endswith("/cancel") for request in cloud.requests)


BOTH_STYLES = pytest.mark.parametrize(
    "style",
    ["strict", pytest.param("lax", marks=pytest.mark.exhaustive)],
)
"""Styles differ in status codes, ids and fields, which `test_again_makes_one_new_job…` and test_recovery.py read."""

# What ends a job, and how that is reported.
ENDS: dict[str, tuple[Script, str]] = {
    "failed, empty error": (Script(outcome="failed", error={}), "the job failed: the service gives no reason"),
    "failed, no error": (Script(outcome="failed"), "the job failed: the service gives no reason"),
    "failed, null members": (
        Script(outcome="failed", error={"code": None, "message": None, "param": None}),
        "the job failed: the service gives no reason",
    ),
    "failed, with a message": (
        Script(
            outcome="failed", error={"code": "exceeded_quota", "message": "Enqueued too many tokens.", "param": None}
        ),
        "the job failed: exceeded_quota: Enqueued too many tokens;",
    ),
    "cancelled": (Script(outcome="cancelled"), "the job was cancelled at the service"),
}


@BOTH_STYLES
@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_ends_without_a_model_ends_the_run_with_its_reason_and_is_not_made_again(
    end: str, style: str, make: Make, tmp_path: Path
) -> None:
    cloud = make(style=style)
    cloud.script, reason = ENDS[end]
    job = planned(tmp_path, tmp_path / "runs")
    for _ in range(2):
        ended = carry_out(job)
        assert ended.code == 1
        assert reason in ended.message
        assert "again=true creates a new job" in ended.message
        assert created_once(cloud), cloud.violations
    elsewhere = carry_out(planned(tmp_path, tmp_path / "other"))
    assert (elsewhere.code, len(cloud.created_jobs)) == (1, 1)


@pytest.mark.parametrize("style", ["strict", "lax"])
def test_again_makes_one_new_job_after_one_that_failed_and_uploads_nothing(
    style: str, make: Make, tmp_path: Path
) -> None:
    cloud = make(style=style)
    cloud.script = Script(outcome="failed")
    job = planned(tmp_path, tmp_path / "runs")
    assert carry_out(job).code == 1
    cloud.script = Script()
    assert execute.stuck(job)
    execute.set_aside(job.folder)
    again = planned(tmp_path, tmp_path / "runs", "again=true")
    for _ in range(2):
        assert carry_out(again).code == 0
        assert len(cloud.created_jobs) == 2
        assert len(cloud.created_files) == 2


def test_a_job_cancelled_in_the_portal_while_it_is_followed(cloud: Emulator, tmp_path: Path) -> None:
    cloud.script = Script(running_seconds=600)

    def cancel(record: Record) -> None:
        if isinstance(record.event, StepStarted) and record.event.step == "follow":
            cloud.cancel_from_portal(next(iter(cloud.jobs)))

    ended = carry_out(planned(tmp_path, tmp_path / "runs"), cancel)
    assert ended.code == 1
    assert "was cancelled at the service" in ended.message


ODDITIES: dict[str, tuple[list[Fault], str]] = {
    "unknown status": (
        [Fault("GET /fine_tuning/jobs/{id}", "job_status", times=3, value="awaiting_capacity")],
        "is in a state that is not known here, 'awaiting_capacity'",
    ),
    "status going backwards": (
        [Fault("GET /fine_tuning/jobs/{id}", "job_status", value="running"),
         Fault("GET /fine_tuning/jobs/{id}", "job_status", times=2, value="queued")],
        "went back from running to queued",
    ),
    "a job that vanishes for a while": (
        [Fault("GET /fine_tuning/jobs/{id}", "vanish", times=4, skip=1)], "the service does not show ftjob-"
    ),
    "events that vanish for a while": ([Fault("GET /fine_tuning/jobs/{id}/events", "vanish", times=2)], ""),
    "files on the same page again": ([Fault("GET /files", "repeat_page", times=None)], ""),
    "jobs on the same page again": ([Fault("GET /fine_tuning/jobs", "repeat_page", times=None)], ""),
    "events on the same page again": ([Fault("GET /fine_tuning/jobs/{id}/events", "repeat_page", times=None)], ""),
    "events out of order and twice": ([Fault("GET /fine_tuning/jobs/{id}/events", "shuffle_events", times=None)], ""),
    "deployment in conflict": ([Fault("PUT deployment", "status", times=2, status=409)], ""),
    "results file missing": (
        [Fault("GET /files/{id}/content", "vanish", times=None)], "is missing or empty"
    ),
}  # fmt: skip


@BOTH_STYLES
@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_odd_answer_is_noted_and_changes_no_metric(
    oddity: str, style: str, undisturbed: Metrics, make: Make, tmp_path: Path
) -> None:
    cloud, (faults, note) = make(style=style), ODDITIES[oddity]
    cloud.script = Script(validating_seconds=0.02, queued_seconds=0.1, running_seconds=0.4)
    for fault in faults:
        cloud.inject(Fault(fault.on, fault.kind, None if fault.left == float("inf") else int(fault.left), fault.skip,
                           **fault.details))  # fmt: skip
    ended = carry_out(planned(tmp_path, tmp_path / "runs", DEPLOYED))
    assert ended.code == 0, ended.message
    assert ended.metrics == undisturbed
    assert note.replace("ftjob-", "") in ended.notes.replace("ftjob-", "")
    assert created_once(cloud), cloud.violations


@pytest.mark.parametrize("results", ["base64", "empty", "missing"])
def test_a_results_file_that_is_not_as_it_should_be(
    results: str, undisturbed: Metrics, make: Make, tmp_path: Path
) -> None:
    cloud = make()
    cloud.script.results = results
    ended = carry_out(planned(tmp_path, tmp_path / "runs", DEPLOYED))
    assert ended.code == 0, ended.message
    assert ended.metrics == undisturbed


@pytest.mark.parametrize("offset", [-3600, 3600])
def test_a_service_whose_clock_is_an_hour_off(offset: float, make: Make, tmp_path: Path) -> None:
    cloud = make(clock_offset=offset)
    cloud.inject(Fault("POST /fine_tuning/jobs", "reset_after"))
    ended = carry_out(planned(tmp_path, tmp_path / "runs"))
    assert ended.code == 0, ended.message
    assert created_once(cloud), cloud.violations


def test_a_lost_job_is_found_where_the_service_shows_no_metadata(make: Make, tmp_path: Path) -> None:
    cloud = make(style="lax")
    cloud.echo_metadata = False
    cloud.inject(Fault("POST /fine_tuning/jobs", "reset_after"))
    ended = carry_out(planned(tmp_path, tmp_path / "runs"))
    assert ended.code == 0, ended.message
    assert created_once(cloud), cloud.violations


def test_a_token_that_expires_while_a_job_is_followed(cloud: Emulator, tmp_path: Path) -> None:
    def expire(record: Record) -> None:
        if isinstance(record.event, StepStarted) and record.event.step == "follow":
            cloud.expire_tokens()

    ended = carry_out(planned(tmp_path, tmp_path / "runs"), expire)
    assert ended.code == 0, ended.message


def test_no_credential_at_all(cloud: Emulator, tmp_path: Path) -> None:
    cloud.inject(Fault("GET token", "status", times=None, status=400))
    ended = carry_out(planned(tmp_path, tmp_path / "runs"))
    assert ended.code == 2
    assert "no credential works" in ended.message
    assert "az login" in ended.message
    assert not cloud.created_files


def test_a_service_that_is_not_there(cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("AZURE_AI_PROJECT_ENDPOINT", f"http://127.0.0.1:{port}/api/projects/none")
    ended = carry_out(planned(tmp_path, tmp_path / "runs", IMPATIENT))
    assert ended.code == 1
    assert "no connection" in ended.message


def test_an_endpoint_with_a_wrong_path(cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_AI_PROJECT_ENDPOINT", cloud.endpoint.replace("rehearsal", "nowhere"))
    ended = carry_out(planned(tmp_path, tmp_path / "runs"))
    assert ended.code == 2
    assert "check it, and the endpoint" in ended.message


def test_a_model_that_the_service_does_not_tune(cloud: Emulator, tmp_path: Path) -> None:
    ended = carry_out(planned(tmp_path, tmp_path / "runs", "model.source=hosted:gpt-9"))
    assert ended.code == 2
    assert "gpt-9" in ended.message
    assert not cloud.created_jobs


def test_a_file_that_the_service_cannot_read(cloud: Emulator, tmp_path: Path) -> None:
    def spoil(record: Record) -> None:
        for file in cloud.files.values():
            file.problem = "Line 3: the content violates the usage policy."

    cloud.file_seconds = 0.3
    job = planned(tmp_path, tmp_path / "runs")
    for _ in range(2):
        ended = carry_out(job, spoil)
        assert ended.code == 2
        assert "Line 3: the content violates the usage policy" in ended.message
    assert not cloud.created_jobs
    assert created_once(cloud)


def test_a_job_that_vanishes_for_good(cloud: Emulator, tmp_path: Path) -> None:
    cloud.inject(Fault("GET /fine_tuning/jobs/{id}", "vanish", times=None))
    ended = carry_out(planned(tmp_path, tmp_path / "runs", IMPATIENT))
    assert ended.code == 1
    assert "has not shown this job for" in ended.message
    assert created_once(cloud)


def test_a_deployment_that_is_ready_but_not_found_for_a_while(cloud: Emulator, tmp_path: Path) -> None:
    cloud.deployment_lag_seconds = 0.5
    ended = carry_out(planned(tmp_path, tmp_path / "runs", DEPLOYED))
    assert ended.code == 0, ended.message
    assert ended.samples[0]["after"].startswith("[ft:gpt-4.1-mini")


def test_a_content_filter_that_refuses_is_an_answer_too(cloud: Emulator, tmp_path: Path) -> None:
    refusal = {"error": {"code": "content_filter", "message": "The response was filtered.", "param": "prompt"}}
    cloud.inject(Fault("POST /responses", "status", status=400, body=refusal))
    ended = carry_out(planned(tmp_path, tmp_path / "runs", DEPLOYED))
    assert ended.code == 0, ended.message
    assert ended.samples[0]["after"] == "[refused by the content filter]"
    assert ended.samples[1]["after"].startswith("[ft:")


def test_something_else_under_the_deployments_name_is_not_touched(cloud: Emulator, tmp_path: Path) -> None:
    cloud.add_deployment("mine", "gpt-4o")
    ended = carry_out(planned(tmp_path, tmp_path / "runs", DEPLOYED, "backend.deployment.name=mine"))
    assert ended.code == 2
    assert "mine is a deployment of gpt-4o already; choose another name" in ended.message
    assert standing(cloud) == ["mine"]
    assert not any(request.method in ("PUT", "DELETE") for request in cloud.requests)


def test_steps_are_the_ones_that_are_disturbed(cloud: Emulator, tmp_path: Path) -> None:
    ended = carry_out(planned(tmp_path, tmp_path / "runs", DEPLOYED))
    done = [each.event.step for each in read(ended.folder / "journal.jsonl") if isinstance(each.event, StepDone)]
    assert done == STEPS
