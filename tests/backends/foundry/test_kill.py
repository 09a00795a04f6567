"""kill -9 at a hundred (two times fifty) random moments: one job a plan, one file a content, the same metrics."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("azure.ai.projects")

from tests.backends.foundry.rehearsal import Make, secrets_in

pytestmark = pytest.mark.slow

KILLS = 50

FORK_KILL_AND_RUN = """
import json, os, random, signal, sys, time
import mlflow, mlflow.tracking, rich.progress, runner.backends.foundry.work, azure.identity, sqlalchemy
from runner.__main__ import main
kills, line, rng = int(sys.argv[1]), sys.argv[3:], random.Random(int(sys.argv[2]))

def child(seed):
    pid = os.fork()
    if pid == 0:
        sys.argv = ["runner", *line, f"seed={seed}"]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            main()
        except SystemExit as end:
            os._exit(end.code or 0)
        finally:
            os._exit(1)
    return pid

landed, seed, began = 0, 0, time.monotonic()
assert os.waitpid(child(seed), 0)[1] == 0
seconds = time.monotonic() - began
while landed < kills:
    seed += 1
    while True:
        pid = child(seed)
        until = time.monotonic() + rng.uniform(0, seconds)
        status = None
        while status is None and time.monotonic() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            status = status if done else None
            time.sleep(0.005)
        if status is None:
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        landed += status == signal.SIGKILL
        if status == 0:
            break
        assert status == signal.SIGKILL, status
print(json.dumps({"landed": landed, "runs": seed + 1, "seconds": seconds}))
"""

METRICS = """
import json
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
experiment = client.get_experiment_by_name("runner").experiment_id
found = {}
for run in client.search_runs([experiment]):
    metrics = [(n, m.step, m.value) for n in run.data.metrics for m in client.get_metric_history(run.info.run_id, n)]
    assert run.info.status == "FINISHED", run.info.status
    assert run.data.params["seed"] not in found, "two MLflow runs of one plan"
    found[run.data.params["seed"]] = sorted(metrics)
print(json.dumps({"metrics": found, "models": len(client.search_logged_models([experiment]))}))
"""


@pytest.mark.parametrize("chance", [1, 2])
def test_fifty_kills_make_one_job_a_plan_and_the_same_metrics(chance: int, make: Make, tmp_path: Path) -> None:
    cloud = make()
    line = [
        "backend=foundry", "dataset=files", f"dataset.train={tmp_path}/train.jsonl",
        f"dataset.validation={tmp_path}/held_out.jsonl", "dpo.n_epochs=2", "dpo.batch_size=4",
        "evaluation.samples=2", "backend.polling.every=0.05", "backend.polling.requests_per_second=1000",
        "backend.deploy=delete_after_eval",
    ]  # fmt: skip
    process = python(tmp_path, FORK_KILL_AND_RUN, str(KILLS), str(chance), *line)
    assert process.returncode == 0, process.stderr[-3000:]
    ran = json.loads(process.stdout.splitlines()[-1])
    assert ran["landed"] >= KILLS
    assert len(cloud.created_jobs) == ran["runs"]
    assert len({job.metadata["runner_plan_id"] for job in cloud.created_jobs if job.metadata}) == ran["runs"]
    assert len(cloud.created_files) == 2
    assert all(each.deleted_at for each in cloud.deployments.values())
    assert cloud.violations == []
    read = python(tmp_path, METRICS)
    assert read.returncode == 0, read.stderr
    told: dict[str, Any] = json.loads(read.stdout.splitlines()[-1])
    undisturbed = told["metrics"]["0"]
    assert len(undisturbed) > 50
    assert set(map(json.dumps, told["metrics"].values())) == {json.dumps(undisturbed)}
    assert (len(told["metrics"]), told["models"]) == (ran["runs"], ran["runs"])
    assert secrets_in(tmp_path) == []


def python(folder: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    line = [sys.executable, "-c", script, *arguments]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
