"""The whole way over real commands: what a linear program sends, sent by the runner, and what comes of it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("azure.ai.projects")

from tests import waiting, warm
from tests.emulator import Emulator, Script
from tests.emulator.records import File
from tests.hosted.rehearsal import Make, created_once, secrets_in, standing

pytestmark = pytest.mark.slow

LINEAR_PROGRAM = Path(__file__).with_name("linear_program.py")
CLIENT_SECRET = "a-client-secret-that-nobody-may-see"
STORE_PASSWORD = "a-password-that-nobody-may-see"


def command(folder: Path, *line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "COLUMNS": "200"} | variables
    return warm.run([sys.executable, *line], cwd=folder, env=environment)


def hosted(folder: Path, *more: str) -> list[str]:
    return [
        "-m", "runner", "backend=foundry", "dataset=files", f"dataset.train={folder}/train.jsonl",
        f"dataset.validation={folder}/held_out.jsonl", "backend.polling.every=0.1",
        "backend.polling.requests_per_second=100", "evaluation.samples=3", *more,
    ]  # fmt: skip


def the_run(folder: Path) -> Path:
    (found,) = (path.parent for path in folder.glob("runs/*/journal.jsonl"))
    return found


def job_body(cloud: Emulator) -> bytes:
    (sent,) = (each for each in cloud.requests if (each.method, each.path[-5:]) == ("POST", "/jobs"))
    return sent.body


def without_ids(body: bytes) -> bytes:
    """Return a job's body with file ids made alike, and without what the runner adds so that a job can be found and
    repeated: seed, and the plan id in suffix and metadata."""
    content = json.loads(body)
    for key in ("seed", "suffix", "metadata"):
        content.pop(key, None)
    plain = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    return re.sub(rb"file-[0-9a-f]+", b"file-ID", plain)


# What is sent does not depend on the style of the answers.
@pytest.mark.parametrize("style", ["strict", pytest.param("lax", marks=pytest.mark.exhaustive)])
def test_the_runner_sends_the_job_that_the_linear_program_sends(style: str, make: Make, tmp_path: Path) -> None:
    theirs = make(style=style)
    theirs.add_deployment("answers", "gpt-4.1-mini")
    program = command(tmp_path, str(LINEAR_PROGRAM), "train.jsonl", "held_out.jsonl", "answers")
    assert program.returncode == 0, program.stderr
    assert program.stdout == "succeeded: [gpt-4.1-mini] How do I keep bread fresh?\n"
    ours = make(style=style)
    asked = ["dpo.n_epochs=3", "dpo.batch_size=1", "dpo.learning_rate_multiplier=1.0"]
    process = command(tmp_path, *hosted(tmp_path, *asked, "tracking=none"))
    assert process.returncode == 0, process.stderr
    assert json.loads(job_body(ours)).keys() - json.loads(job_body(theirs)).keys() == {"seed", "suffix", "metadata"}
    assert without_ids(job_body(ours)) == without_ids(job_body(theirs))
    assert [rows(file) for file in ours.created_files] == [rows(file) for file in theirs.created_files]
    assert ours.violations == theirs.violations == []


def test_a_hosted_run_ends_in_mlflow_with_its_model_and_nothing_secret_anywhere(make: Make, tmp_path: Path) -> None:
    cloud = make()
    cloud.add_deployment("base", "gpt-4.1-mini")
    line = hosted(tmp_path, "dpo.n_epochs=2", "dpo.batch_size=4", "backend.deploy=keep", "tracking.register=house",
                  "dataset.style='.*fresh.*'")  # fmt: skip
    process = command(tmp_path, *line, AZURE_CLIENT_SECRET=CLIENT_SECRET)
    assert process.returncode == 0, process.stderr
    run, (job,) = the_run(tmp_path), cloud.created_jobs
    assert json.loads((run / "model" / "hosted.json").read_bytes())["model"] == job.fine_tuned_model
    (first, *_) = json.loads((run / "samples.json").read_bytes())
    assert first["before"] == f"[gpt-4.1-mini] {first['prompt']}"
    assert first["after"] == f"[{job.fine_tuned_model}] {first['prompt']}"
    found = in_mlflow(tmp_path)
    assert (found["status"], found["registered"], found["models"]) == ("FINISHED", ["house"], 1)
    assert found["tags"]["runner.model"] == f"hosted:{job.fine_tuned_model}"
    assert found["tags"]["runner.job"] == job.id
    assert {"train/loss", "train/reward_accuracy", "eval/loss", "eval/in_style", "hosted/train_loss"} <= set(
        found["metrics"]
    )
    assert {name.removeprefix("hosted/") for name in found["metrics"] if name.startswith("hosted/")} == columns(cloud)
    assert found["params"]["dpo.n_epochs"] == "2"
    assert f"`hosted:{job.fine_tuned_model}:ckpt-step-" in (run / "report.md").read_text("utf-8")
    again = command(tmp_path, *line)
    assert again.returncode == 0
    assert "finished before" in again.stdout
    assert created_once(cloud)
    clean = command(tmp_path, "-m", "runner.clean", "--yes")
    assert clean.returncode == 0, clean.stderr
    assert standing(cloud) == ["base"]
    assert all(file.deleted for file in cloud.created_files)
    reported = "".join(each.stdout + each.stderr for each in (process, again, clean))
    assert not [secret for secret in (*cloud.tokens, CLIENT_SECRET) if secret in reported]
    assert secrets_in(tmp_path) == []
    assert files_with(tmp_path, CLIENT_SECRET) == []


def test_a_stores_password_is_in_no_file_and_no_line(make: Make, tmp_path: Path) -> None:
    make()
    uri = f"postgresql://me:{STORE_PASSWORD}@127.0.0.1:9/store"
    process = command(tmp_path, *hosted(tmp_path), MLFLOW_TRACKING_URI=uri)
    assert process.returncode == 0, process.stderr
    assert "postgresql://me:***@127.0.0.1:9/store could not be reached" in process.stdout
    typed = command(tmp_path, *hosted(tmp_path, f"'tracking.uri=\"{uri}\"'"))
    assert typed.returncode == 2
    assert typed.stderr.startswith("tracking.uri: a secret is never typed")
    assert STORE_PASSWORD not in process.stdout + process.stderr + typed.stdout + typed.stderr
    assert files_with(tmp_path, STORE_PASSWORD) == []


def test_sft_goes_the_same_way(make: Make, tmp_path: Path) -> None:
    cloud = make(style="lax")
    process = command(tmp_path, *hosted(tmp_path, "method=sft", "sft.n_epochs=2", "backend.suffix=polite"))
    assert process.returncode == 0, process.stderr
    body = json.loads(job_body(cloud))
    assert body["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    assert (body["suffix"], body["seed"], body["trainingType"]) == ("polite", 42, "GlobalStandard")
    assert {"train/loss", "train/token_accuracy"} <= set(in_mlflow(tmp_path)["metrics"])
    assert cloud.violations == []


def test_the_same_plan_elsewhere_finds_the_job_and_follows_it(make: Make, tmp_path: Path) -> None:
    cloud = make()
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir(), elsewhere.mkdir()
    assert command(here, *hosted(tmp_path, "tracking=none", "backend.follow=false")).returncode == 0
    process = command(elsewhere, *hosted(tmp_path, "tracking=none"), RUNNER_CACHE=str(tmp_path / "other-machine"))
    assert process.returncode == 0, process.stderr
    assert f"the service has a job of this plan, {cloud.created_jobs[0].id}" in process.stdout
    assert created_once(cloud)


def test_two_processes_at_once_make_one_job(make: Make, tmp_path: Path) -> None:
    cloud = make()
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    line = [sys.executable, *hosted(tmp_path, "tracking=none")]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    running = [warm.Popen(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL) for folder in folders]
    assert [process.wait(waiting.SECONDS) for process in running] == [0, 0]
    assert created_once(cloud)


def test_two_machines_at_the_same_moment_end_with_one_job_alive(make: Make, tmp_path: Path) -> None:
    """Without a common lock both may create; then the younger job is cancelled by who made it."""
    cloud = make()
    cloud.script = Script(queued_seconds=1.0, running_seconds=1.0)
    folders = [tmp_path / name for name in ("one", "two")]
    running = []
    for folder in folders:
        folder.mkdir()
        environment = os.environ | {"PYTHONWARNINGS": "ignore", "RUNNER_CACHE": str(folder / "cache")}
        line = [sys.executable, *hosted(tmp_path, "tracking=none")]
        running.append(warm.Popen(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL))
    assert [process.wait(waiting.SECONDS) for process in running] == [0, 0]
    models = {json.loads((the_run(folder) / "model" / "hosted.json").read_bytes())["model"] for folder in folders}
    assert len(models) == 1
    alive = [job for job in cloud.created_jobs if not any(signal.kind == "cancelled" for signal in job.signals)]
    assert len(alive) == 1


def test_what_is_asked_for_comes_from_dotenv_as_well(make: Make, tmp_path: Path) -> None:
    cloud = make()
    variables = cloud.environment()
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()), "utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in variables}
    line = [sys.executable, *hosted(tmp_path, "tracking=none")]
    warm.run(line, cwd=tmp_path, env=environment | {"PYTHONWARNINGS": "ignore"}, check=True)


def test_continuing_from_a_hosted_run_tunes_its_model(make: Make, tmp_path: Path) -> None:
    cloud = make()
    assert command(tmp_path, *hosted(tmp_path, "tracking=none", "name=first")).returncode == 0
    process = command(tmp_path, *hosted(tmp_path, "tracking=none", "name=second", "model.source=run:first"))
    assert process.returncode == 0, process.stderr
    first, second = cloud.created_jobs
    assert second.model == first.fine_tuned_model
    local = command(tmp_path, "-m", "runner", "model.source=run:first", "mode=plan")
    assert local.returncode == 2
    assert len(local.stderr.strip().splitlines()) == 1


IN_MLFLOW = """
import json
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
found = client.search_runs([client.get_experiment_by_name("runner").experiment_id])
(run,) = [each for each in found if "runner.base_of" not in each.data.tags]
(model,) = client.search_logged_models([run.info.experiment_id])
print(json.dumps({
    "status": run.info.status, "params": run.data.params, "metrics": run.data.metrics, "tags": model.tags, "models": 1,
    "registered": [each.name for each in client.search_registered_models()],
}))
"""


def in_mlflow(folder: Path) -> dict[str, Any]:
    process = command(folder, "-c", IN_MLFLOW)
    assert process.returncode == 0, process.stderr
    content: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return content


def columns(cloud: Emulator) -> set[str]:
    """Return the columns of the job's results file, but for the step."""
    (job,) = cloud.created_jobs
    assert job.results is not None
    return set(job.results.content.decode().splitlines()[0].split(",")) - {"step"}


def rows(file: File) -> list[Any]:
    return [json.loads(line) for line in file.content.splitlines()]


def files_with(folder: Path, secret: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
