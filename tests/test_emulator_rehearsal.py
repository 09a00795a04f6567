"""The rehearsal really trains: jobs are runs on this machine, seen through the hosted service's interface."""

import json
import math
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.hosted import methods as wire_forms
from runner.record.events import Metrics
from runner.record.journal import read
from tests import waiting, warm
from tests.conftest import pair_row
from tests.emulator import local
from tests.emulator.course import TERMINAL
from tests.emulator.local import LocalTraining
from tests.emulator.sdk import Client, chat_row, connected
from tests.hosted.rehearsal import carry_out, planned, write_data

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture
def client(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(local.Run, "popen", warm.Popen)
    # A random model ends no answer, and each would have the 128 tokens of the default.
    monkeypatch.setattr(LocalTraining, "more", {"rft": ("rft.max_new_tokens=24",)})
    with (
        LocalTraining(tmp_path / "jobs", f"path:{tiny_model}") as engine,
        connected(monkeypatch, "lax", engine=engine) as client,
    ):
        client.cloud.file_seconds = 0
        yield client


def ended(client: Client, job: Any) -> Any:
    waiting.until(lambda: client.jobs.retrieve(job.id).status in TERMINAL, f"the end of {job.id}", seconds=240)
    return client.jobs.retrieve(job.id)


def upload(client: Client, rows: list[dict[str, Any]]) -> str:
    """Upload rows without pushing the clock: training takes real time."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return str(client.openai.files.create(file=("rows.jsonl", content), purpose="fine-tune").id)


def test_a_job_trains_measures_and_answers(client: Client, tmp_path: Path) -> None:
    train, validation = (upload(client, [pair_row(number) for number in span]) for span in (range(12), range(12, 16)))
    hyperparameters = {"n_epochs": 2, "batch_size": 4, "beta": 0.3, "learning_rate_multiplier": 100.0}
    job = client.order(training_file=train, validation_file=validation, hyperparameters=hyperparameters, seed=7)
    done = ended(client, job)
    assert done.status == "succeeded"
    header, *lines = client.openai.files.content(done.result_files[0]).text.splitlines()
    table = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    assert [row["step"] for row in table] == ["1", "2", "3", "4", "5", "6"]
    assert float(table[-1]["train_reward_margin"]) > float(table[0]["train_reward_margin"]) == 0
    assert {"train_loss", "train_accuracy", "full_valid_loss", "full_valid_accuracy"} < set(table[0])
    assert float(table[-1]["full_valid_loss"]) > 0
    answered = {event.data["step"] for event in client.jobs.list_events(job.id, limit=100) if event.type == "metrics"}
    assert answered == {1, 2, 3, 4, 5, 6}
    (request,) = tmp_path.glob("jobs/*/runs/*/request.json")
    assert '"beta": 0.3' in request.read_text("utf-8")
    client.cloud.add_deployment("tuned", done.fine_tuned_model)
    client.cloud.add_deployment("base", "gpt-4.1-mini")
    question = "How do I keep 3 loaves of bread fresh?"
    tuned, base = (client.openai.responses.create(model=name, input=question).output_text for name in ("tuned", "base"))
    assert tuned != base


def test_a_rehearsed_run_minimises_the_loss_of_its_plan_and_measures_every_held_out_row(
    client: Client, tmp_path: Path
) -> None:
    from runner.backends.foundry import connect

    write_data(tmp_path)
    run = planned(tmp_path, tmp_path / "runs", "dpo.n_epochs=1", "dpo.batch_size=8")
    ended = carry_out(run)
    connect.close()
    assert ended.code == 0, ended.message
    (trained,) = tmp_path.glob("jobs/*/runs/*/plan.json")
    hyperparameters = json.loads(trained.read_bytes())["hyperparameters"]
    fixed = wire_forms.load("dpo").fixed
    assert {key: hyperparameters[key] for key in fixed} == {key: run.plan.hyperparameters[key] for key in fixed}
    found = {(step, name): value for step, name, value in ended.metrics}
    assert found[1, "train/loss"] == pytest.approx(math.log(2))  # DPO's at the reference, without an SFT term
    measured = {
        (record.event.step, name): value
        for record in read(trained.with_name("journal.jsonl"))
        if isinstance(record.event, Metrics)
        for name, value in record.event.values.items()
    }
    for name in ("eval/loss", "eval/reward_accuracy", "eval/reward_margin"):
        assert found[3, name] == pytest.approx(measured[3, name])


def test_a_reinforcement_job_learns_from_graded_answers_and_reports_the_reward_of_each_grader(
    client: Client, tmp_path: Path
) -> None:
    vowels = "def grade(sample, item):\n    return sum(each in 'aeiou' for each in sample['output_text']) / 50\n"
    parts = {
        "vowels": {"type": "python", "name": "vowels", "source": vowels},
        "right": {"type": "string_check", "name": "right", "operation": "ne", "input": "{{ sample.output_text }}",
                  "reference": "{{ item.answer }}"},
    }  # fmt: skip
    grader = {"type": "multi", "name": "both", "graders": parts, "calculate_output": "(vowels + right) / 2"}
    train, validation = (
        upload(client, [{**chat_row(number), "messages": chat_row(number)["messages"][:1], "answer": str(number + 1)}
                        for number in span])
        for span in (range(12), range(12, 24))
    )  # fmt: skip
    hyperparameters = {"n_epochs": 1, "batch_size": 4, "compute_multiplier": 0.5, "eval_interval": 2, "eval_samples": 1}
    job = client.jobs.create(
        model="o4-mini", training_file=train, validation_file=validation, seed=3,
        method={"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": hyperparameters}},
    )  # fmt: skip
    done = ended(client, job)
    assert done.status == "succeeded", done.error
    (folder,) = tmp_path.glob("jobs/*/runs/*")
    measured = [each.event for each in read(folder / "journal.jsonl") if isinstance(each.event, Metrics)]
    rewards = {event.step: event.values["train/reward"] for event in measured if "train/reward" in event.values}
    assert rewards.keys() == {1, 2, 3}
    reported = [event.data for event in client.jobs.list_events(job.id, limit=100) if event.type == "metrics"]
    assert {data["step"]: data["train_mean_reward"] for data in reported if "train_mean_reward" in data} == rewards
    (last,) = (data for data in reported if data["step"] == 2 and "full_valid_mean_reward" in data)
    assert {each["name"] for each in last["scores"]["graders"]} == {"vowels", "right"}
    adapter = folder / "model" / "adapter-1" / "adapter_model.safetensors"
    assert adapter.exists()


def test_jobs_wait_for_each_other_and_can_be_cancelled(client: Client) -> None:
    file = upload(client, [chat_row(number) for number in range(10)])
    first, second, third = (client.order("supervised", training_file=file, seed=seed) for seed in range(3))
    client.jobs.cancel(second.id)
    assert client.jobs.retrieve(first.id).status == "running"
    assert client.jobs.retrieve(third.id).status == "queued"
    client.jobs.cancel(first.id)
    assert [client.jobs.retrieve(job.id).status for job in (first, second)] == ["cancelled", "cancelled"]
    assert ended(client, third).status == "succeeded"


def test_the_end_of_a_rehearsal_does_not_wait_for_the_step_and_the_checkpoint_of_its_job(
    client: Client, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[Any]] = []

    def start(*line: Any, **options: Any) -> Any:
        started.append(warm.Popen(*line, **options))
        return started[-1]

    monkeypatch.setattr(local.Run, "popen", staticmethod(start))
    file = upload(client, [chat_row(number) for number in range(100)])
    with LocalTraining(tmp_path / "ending", f"path:{tiny_model}") as client.cloud.engine:
        client.order("supervised", training_file=file, hyperparameters={"n_epochs": 10, "batch_size": 1})
        waiting.until(lambda: any(tmp_path.glob("ending/*/runs/*/journal.jsonl")), "the beginning of the run")
    assert started[0].returncode == -signal.SIGKILL, "asked to stop, it may take longer than whoever waits for Ctrl-C"


def test_a_run_that_fails_reports_why(client: Client, tmp_path: Path) -> None:
    file = upload(client, [chat_row(number) for number in range(10)])
    client.cloud.engine = LocalTraining(tmp_path / "others", "path:/nowhere")
    done = ended(client, client.order("supervised", training_file=file))
    assert done.status == "failed"
    assert "/nowhere" in done.error.message


def test_the_command_prints_what_to_paste_and_ends_on_ctrl_c() -> None:
    line = [sys.executable, "-m", "tests.emulator"]
    with warm.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        exports: dict[str, str] = {}
        while "AZURE_TOKEN_CREDENTIALS" not in exports:  # the last one
            name, value = process.stdout.readline().removeprefix("export ").strip().split("=", 1)
            exports[name] = value
        assert exports["FOUNDRY_PROJECT_ENDPOINT"] == exports["AZURE_AI_PROJECT_ENDPOINT"]
        assert {
            f"AZURE_AI_PROJECTS_AZURE_{each}" for each in ("SUBSCRIPTION_ID", "RESOURCE_GROUP", "AOAI_ACCOUNT")
        } < set(exports)
        request = urllib.request.Request(exports["IDENTITY_ENDPOINT"], headers={"X-IDENTITY-HEADER": "rehearsal"})
        with urllib.request.urlopen(request) as answer:
            assert b"secret-token-" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
