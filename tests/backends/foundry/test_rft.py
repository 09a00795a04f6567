"""Hosted reinforcement jobs over the real SDKs: what is reported before, what is sent, what comes of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("azure.ai.projects")

from runner import api, backends, planning
from runner.backends.foundry import price
from runner.backends.foundry.catalogue import catalogue
from runner.backends.foundry.connect import service
from runner.backends.foundry.keys import Foundry
from runner.data import kinds
from runner.errors import DataError, RequestError
from runner.execution import execute
from runner.hosted.jobs import ServiceJobs
from runner.plan import Proposal, flat_params
from runner.record.events import State
from runner.record.journal import Record, read
from tests.emulator import Emulator, Fault, Script
from tests.hosted.rehearsal import REINFORCED, Make, carry_out, created_once, planned

pytestmark = pytest.mark.slow

KEY = "secret-token-of-a-grader"
RIGHT: dict[str, Any] = {
    "type": "string_check", "input": "{{ sample.output_text }}", "reference": "{{ item.reference }}", "operation": "eq",
}  # fmt: skip
SHORT: dict[str, Any] = {
    "type": "python", "source": "def grade(sample, item):\n    return 1.0 / (1 + len(sample['output_text']))\n",
    "timeout": 5.0,
}  # fmt: skip
BOTH: dict[str, Any] = {
    "type": "multi", "name": "both", "graders": {"right": RIGHT, "short": SHORT}, "calculate_output": "right + short",
}  # fmt: skip


def problem(number: int, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"{number} + 1?"}], "answer": str(number + 1)} | more


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def asked(folder: Path, *overrides: str, grader: str | dict[str, Any] = "string_check", **rows: Any) -> Proposal:
    """Plan a hosted job over small problems; `rows` are those of `train` and `held_out`."""
    content = {"train": [problem(n) for n in range(12)], "held_out": [problem(n) for n in range(50, 60)]} | rows
    for name, each in content.items():
        each = [row | {"reference": row["answer"]} if "answer" in row else row for row in each]
        written(folder / f"{name}.jsonl", each)
    (folder / "grader.json").write_text(json.dumps(grader), "utf-8")
    named = grader if isinstance(grader, str) else f"{folder}/grader.json"
    held_out = [f"dataset.validation={folder}/held_out.jsonl"] if content["held_out"] else []
    return api.plan(
        "method=rft", "backend=foundry", "model.source=hosted:o4-mini", "dataset=files", "mode=plan",
        f"dataset.train={folder}/train.jsonl", *held_out, f"runs_folder={folder}/runs", f"rft.grader={named}",
        *overrides,
    )  # fmt: skip


def reported(proposal: Proposal) -> dict[str, str]:
    return dict(backends.of(proposal.run).forecast(proposal, None))


def test_a_job_without_held_out_rows_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        asked(tmp_path, held_out=[])
    assert str(caught.value) == (
        "dataset.validation: there are no held-out rows; the service takes method=rft with 10 or more; set "
        "dataset.validation=FILE, or dataset.validation_fraction."
    )


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_row_of_either_file_without_what_the_grader_names_is_reported_by_file_and_line(
    split: str, tmp_path: Path
) -> None:
    rows = [problem(number) for number in range(100, 120)]
    rows[16] = {"messages": rows[16]["messages"], "anwser": "17"}
    with pytest.raises(DataError) as caught:
        asked(tmp_path, **{split: rows})
    assert str(caught.value).startswith(f"{tmp_path}/{split}.jsonl:17: grader right names item.reference, which 1 of ")


def test_a_grader_without_spread_is_a_warning(tmp_path: Path) -> None:
    same = {**RIGHT, "name": "same", "reference": "{{ sample.output_text }}"}
    [found] = asked(tmp_path, grader=same).rehearsed
    assert found.warnings == ("every answer, good, bad or empty, has the score 1: it distinguishes nothing",)


@pytest.mark.parametrize("model", ["gpt-oss-120b", "Alibaba/qwen3.6-35b-a3b"])
def test_a_training_type_that_a_model_does_not_have_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        asked(tmp_path, f"model.source=hosted:{model}", "backend.training_type=Standard")
    assert str(caught.value).startswith(
        f"backend.training_type: got Standard, which the service does not offer for {model}; allowed: GlobalStandard, "
    )


def test_the_source_of_a_grader_is_part_of_the_plan_and_what_is_not_sent_is_not(tmp_path: Path) -> None:
    plan = asked(tmp_path, grader=BOTH).run.plan
    slower = {**BOTH, "graders": {"right": RIGHT, "short": {**SHORT, "timeout": 60.0}}}
    other = {**BOTH, "graders": {"right": RIGHT, "short": {**SHORT, "source": SHORT["source"] + "# changed\n"}}}
    assert asked(tmp_path, grader=slower).run.plan.id == plan.id
    assert asked(tmp_path, grader=other).run.plan.id != plan.id
    assert flat_params(asked(tmp_path, grader=BOTH).run)["rft.grader.calculate_output"] == "right + short"


def test_a_secret_is_no_part_of_the_plan_wherever_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = {"type": "endpoint", "name": "ours", "url": "https://h/g", "headers": {"x-key": "$ONE"}}
    found = asked(tmp_path, grader=endpoint)
    assert found.run.plan.hyperparameters["grader"]["headers"] == {"x-key": "***"}
    assert asked(tmp_path, grader={**endpoint, "headers": {"x-key": "$TWO"}}).run.plan.id == found.run.plan.id
    with pytest.raises(RequestError, match=r"^rft.grader: headers.x-key: a secret is written down; fix: \$NAME"):
        asked(tmp_path, grader={**endpoint, "headers": {"x-key": "a literal"}})


def test_the_plan_reports_the_price_by_the_hour_the_limit_the_dates_and_what_is_not_sent(tmp_path: Path) -> None:
    lines = reported(
        asked(tmp_path, "rft.n_epochs=2", "rft.batch_size=5", "backend.training_type=Standard", grader=BOTH)
    )
    assert lines["trains"] == (
        "12 prompts, n_epochs=2, batch_size=5: about 5 optimizer steps, each with several answers to a prompt"
    )
    assert lines["price"].startswith("$100.00 an hour of training, Standard; how many hours is known after a first job")
    assert "pauses the job once training and grading have cost $5,000 (table of 2026-10, " in lines["price"]
    assert lines["grading"] == "no tokens; its time is a part of the training's"
    assert lines["not sent"].startswith("rft.grader.graders.short.timeout: only we have these")
    assert "trained at least until 2027-04-16; deployed at least until 2027-10-16 (read 2026-10-05, " in lines["model"]
    assert lines["warning"].startswith("o4-mini is retired; in its place, for rft: jobs on gpt-oss-120b, ")
    assert "backend=" not in lines["warning"], "our own loop trains no rft"
    assert reported(asked(tmp_path))["price"].startswith("at most $100.00 an hour of training, GlobalStandard; ")
    assert "no limit of cost" in reported(asked(tmp_path, "model.source=hosted:gpt-5"))["price"]


def test_the_plan_reports_the_tokens_of_a_judge_as_far_as_they_can_be_known(tmp_path: Path) -> None:
    judge = {
        "type": "score_model", "name": "good", "model": "gpt-4.1-mini",
        "input": [{"role": "user", "content": "word " * 400 + "{{ item.answer }}: {{ sample.output_text }}"}],
    }  # fmt: skip
    grading = reported(asked(tmp_path, grader=judge))["grading"]
    tokens = int(grading.partition("about ")[2].partition(" tokens in")[0])
    assert 500 < tokens < 700
    assert "gpt-4.1-mini, paid by the token in addition to the training" in grading
    assert "10 held-out rows × rft.eval_samples answers per evaluation" in grading


def test_a_job_sends_its_grader_as_a_plain_object_and_is_measured_under_shared_names(
    make: Make, tmp_path: Path
) -> None:
    cloud = make(style="lax")
    form = "{type: json_schema, json_schema: {name: a, strict: true, schema: {type: object}}}"
    asked(tmp_path, grader=BOTH)
    line = [*REINFORCED, f"rft.grader={tmp_path}/grader.json", f"rft.response_format={form}", "rft.eval_interval=3",
            "rft.reasoning_effort=low"]  # fmt: skip
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *line))
    assert ended.code == 0, ended.message
    [job] = cloud.created_jobs
    assert (job.method, job.training_type) == ("reinforcement", "GlobalStandard")
    assert job.hyperparameters == {"n_epochs": 2, "batch_size": 4, "eval_interval": 3, "reasoning_effort": "low"}
    assert job.settings["grader"]["graders"] == {
        "right": {**RIGHT, "name": "right"}, "short": {"type": "python", "source": SHORT["source"], "name": "short"},
    }  # fmt: skip
    assert job.settings["response_format"]["json_schema"]["name"] == "a"
    row = json.loads(job.training.content.splitlines()[0])
    assert row == {**problem(0), "reference": "1"}
    names = {name for _, name, _ in ended.metrics}
    assert {"train/reward", "eval/reward", "eval/parse_errors", "train/reward_right", "eval/reward_short"} <= names
    assert "hosted/scores/graders/right/train_reward_mean" in names
    assert "the service keeps its own evaluation of each step as eval_" in ended.notes
    assert created_once(cloud), cloud.violations


def test_a_job_that_the_service_pauses_at_its_limit_is_reported_and_continues_once_it_is_resumed(
    make: Make, tmp_path: Path
) -> None:
    cloud = make()
    cloud.script = Script(validating_seconds=0.02, queued_seconds=0.03, running_seconds=1.0, limit_of_cost=0.3)
    run = planned(tmp_path, tmp_path / "runs", *REINFORCED)
    states: list[str] = []

    def resume_when_paused(record: Record) -> None:
        if isinstance(record.event, State):
            states.append(record.event.value)
            if record.event.value == "paused":
                resumed = ServiceJobs(service(Foundry.of(run.request))).change("resume", cloud.created_jobs[0].id)
                assert resumed == "resuming"

    ended = carry_out(run, resume_when_paused)
    assert ended.code == 0, ended.message
    assert states.count("paused") == 1
    assert "is paused, by somebody or by the service at its limit of cost" in ended.notes
    assert f"python -m runner.jobs resume {cloud.created_jobs[0].id}" in ended.notes
    said = [each.event for each in read(ended.folder / "journal.jsonl")]
    assert any("reached the cost limit" in str(event) for event in said)
    assert created_once(cloud)


def test_a_job_that_fails_says_that_hours_may_be_billed(make: Make, tmp_path: Path) -> None:
    cloud = make()
    message = "This model is unable to be deployed. Model evaluation identified that this fine tuned model scores above"
    cloud.script = Script(outcome="failed", error={"code": "safety", "message": message})
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *REINFORCED))
    assert ended.code == 1
    assert f"the job failed: safety: {message}; the hours of training so far may be billed" in ended.message


def test_an_earlier_jobs_pace_gives_hours_and_price_and_max_price_asks(make: Make, tmp_path: Path) -> None:
    from runner.execution import report
    from runner.terminal import console

    make()
    run = planned(tmp_path, tmp_path / "runs", *REINFORCED)
    assert price.dollars_of_hours(run, catalogue(None).find("o4-mini")) is None
    assert carry_out(run).code == 0
    report.write(run, report.Outcome("finished"))
    asked(tmp_path)
    later = asked(tmp_path, "rft.n_epochs=8", "rft.batch_size=2")  # 12 rows: 48 steps of 90 seconds, an hour and 12 min
    assert reported(later)["price"].startswith(
        "about $120.00: at most $100.00 an hour of training, GlobalStandard; about 1 h"
    )
    assert planning.total_cost([later]).dollars == pytest.approx(120)
    with pytest.raises(RequestError, match=r"^max_price: got 100, but this takes about \$120.00; nothing was sent"):
        console.confirm_price(planning.total_cost([later]).dollars, 100)
    with pytest.raises(RequestError, match="this takes a price that is not known"):
        console.confirm_price(planning.total_cost([asked(tmp_path)]).dollars, 100)


VALIDATED = "backend.validate_grader=true"


def graders_asked(cloud: Emulator) -> list[str]:
    return [request.path.rpartition("/")[2] for request in cloud.requests if "/graders/" in request.path]


def test_a_grader_is_checked_at_the_service_before_anything_is_uploaded_and_compared_with_the_one_here(
    make: Make, tmp_path: Path
) -> None:
    cloud = make()
    cloud.regrade = lambda score: score * 0.9
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *REINFORCED, VALIDATED))
    assert ended.code == 0, ended.message
    assert graders_asked(cloud) == ["validate"] + 10 * ["run"]
    assert [each.path.rpartition("/")[2] for each in cloud.requests].index("files") > 10
    assert (
        "grader right: the service gives other scores than this machine for 5 of 10 answers: the reference of row "
        "1: 0.9 there, 1 here; the reference of row 2: 0.9 there, 1 here; the reference of row 3: 0.9 there, 1 here; "
        "and 2 more"
    ) in ended.notes
    assert created_once(cloud), cloud.violations


def test_a_grader_that_the_service_refuses_ends_the_run_before_the_upload(make: Make, tmp_path: Path) -> None:
    cloud = make()
    refusal = {"error": {"code": "invalidPayload", "message": "item.reference is no key", "param": "grader"}}
    cloud.inject(Fault("POST /fine_tuning/alpha/graders/validate", "status", status=400, body=refusal))
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *REINFORCED, VALIDATED))
    assert ended.code == 2
    assert ended.message.startswith("validating rft.grader: 400 invalidPayload: item.reference is no key; ")
    assert cloud.created_files == []


def test_a_service_without_such_checks_is_reported_and_the_job_continues(make: Make, tmp_path: Path) -> None:
    cloud = make()
    cloud.inject(Fault("POST /fine_tuning/alpha/graders/validate", "vanish"))
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *REINFORCED, VALIDATED))
    assert ended.code == 0, ended.message
    assert "this service does not validate graders" in ended.notes
    assert graders_asked(cloud) == ["validate"]


def test_the_key_of_an_endpoint_grader_reaches_the_service_and_no_file(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = make()
    monkeypatch.setenv("GRADER_KEY", KEY)
    endpoint = {"type": "endpoint", "name": "ours", "url": "https://h/g", "headers": {"x-key": "$GRADER_KEY"}}
    asked(tmp_path, grader=endpoint)
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *REINFORCED, f"rft.grader={tmp_path}/grader.json"))
    assert ended.code == 0, ended.message
    assert cloud.created_jobs[0].settings["grader"]["headers"] == {"x-key": KEY}
    kept = json.loads((ended.folder / "request.json").read_bytes())["rft"]["grader"]["headers"]
    assert kept == {"x-key": "$GRADER_KEY"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY not in ended.message + ended.notes
    # `watch` comes back by what the folder holds.
    monkeypatch.delenv("GRADER_KEY")
    assert carry_out(planning.load(ended.folder)).code == 0


def test_a_secret_that_is_written_down_in_another_grader_is_not_kept_either(tmp_path: Path) -> None:
    run = asked(tmp_path).run
    literal = {"type": "endpoint", "name": "ours", "url": "https://h/g", "headers": {"x-key": "a literal"}}
    request = replace(run.request, evaluation=replace(run.request.evaluation, graders=["length", literal]))
    run.folder.mkdir(parents=True)
    execute.keep(replace(run, request=request))
    assert "a literal" not in (run.folder / "request.json").read_text("utf-8")
    kept = json.loads((run.folder / "request.json").read_bytes())["evaluation"]["graders"]
    assert kept == ["length", {**literal, "headers": {"x-key": "***"}}]


def test_problems_are_what_the_method_takes_from_rows_of_any_kind(tmp_path: Path) -> None:
    pair = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
    rows = [pair | {"prompt": f"{number}?"} for number in range(12)]
    run = asked(tmp_path, train=rows).run
    assert all(isinstance(row, kinds.load("problem")) for row in run.rows("train"))
