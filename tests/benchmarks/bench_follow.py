"""One process follows 500 hosted jobs: its memory, its share of a core, and the requests it sends.

    python tests/benchmarks/bench_follow.py [--jobs 500] [--seconds 240] [--tracking mlflow|none]

The emulator runs in this process, `python -m runner.watch` in one of its own, with its default limits and with
MLflow. The first minute, in which it loads and takes the jobs up, is reported apart. Bars: under 300 MB, under
25 % of one core, never more requests a second than `backend.polling.requests_per_second`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from dataclasses import replace
from pathlib import Path

from azure.ai.projects import AIProjectClient
from azure.identity import DefaultAzureCredential
from openai import OpenAI

sys.path.insert(0, str(Path(__file__).parents[2]))

from runner.execution import execute, report
from runner.hosted.jobs import arguments
from runner.record.events import StepDone
from runner.record.journal import Journal
from runner.tracking.sender import Sender, position_of
from tests.emulator import UNLIMITED, Emulator, Script
from tests.hosted.rehearsal import planned, write_data

LIMIT = 5.0
"""Requests a second: the default of `backend.polling.requests_per_second`."""
TAKING_UP_SECONDS = 60.0


def main() -> None:
    """Create the jobs, let one process follow them, measure it and print a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--tracking", choices=("mlflow", "none"), default="mlflow")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Emulator(style="lax") as cloud:
        cloud.limits = UNLIMITED  # as many projects, whose jobs one process follows
        cloud.script = Script(queued_seconds=5, running_seconds=1800, steps=[{"train_loss": 0.5}] * 400)
        os.environ |= cloud.environment() | {"RUNNER_CACHE": f"{folder}/cache"}
        os.chdir(folder)
        write_data(Path(folder))
        _create(Path(folder), asked.jobs, asked.tracking)
        cloud.requests.clear()
        print(
            json.dumps({"jobs": len(cloud.created_jobs), "tracking": asked.tracking, **_follow(cloud, asked.seconds)})
        )


def _create(folder: Path, count: int, tracking: str) -> None:
    """Leave runs as `backend.follow=false` leaves them: a job at the service, a journal, a run in MLflow."""
    settings = [f"tracking={tracking}", "tracking.experiment=follow", "backend.polling.requests_per_second=5"]
    settings += ["backend.polling.every=15", "backend.polling.patience=900"]
    first = planned(folder, folder / "runs", *settings)
    with _client() as client:
        with (folder / "train.jsonl").open("rb") as file:
            training = client.files.create(file=file, purpose="fine-tune").id
        time.sleep(1)
        for seed in range(count):
            job = replace(
                first, plan=replace(first.plan, seed=seed), folder=folder / "runs" / f"bench-{seed:04}",
                request=replace(first.request, seed=seed),
            )  # fmt: skip
            extra = {"trainingType": "GlobalStandard"}
            sent = client.fine_tuning.jobs.create(
                **arguments(job.plan, "gpt-4.1-mini", {"train": training}, "bench", extra)
            )
            job.folder.mkdir(parents=True)
            execute.keep(job)
            journal = Journal(job.folder / "journal.jsonl")
            journal.add(StepDone("upload", "", 1.0, {"endpoint": os.environ["AZURE_AI_PROJECT_ENDPOINT"]}))
            journal.add(StepDone("create", "", 1.0, {"job": sent.id}))
            report.write(job, report.Outcome("running"))
            if job.request.tracking.enabled:
                Sender(job, position_of(job)).send("running")
    time.sleep(5)


def _client() -> OpenAI:
    project = AIProjectClient(os.environ["AZURE_AI_PROJECT_ENDPOINT"], DefaultAzureCredential())
    return project.get_openai_client()


def _follow(cloud: Emulator, seconds: float) -> dict[str, float]:
    process = subprocess.Popen([sys.executable, "-m", "runner.watch"], stdout=subprocess.DEVNULL)
    time.sleep(TAKING_UP_SECONDS)
    used, began = _cpu_seconds(process.pid), time.monotonic()
    time.sleep(seconds)
    share = (_cpu_seconds(process.pid) - used) / (time.monotonic() - began)
    memory = _peak_megabytes(process.pid)
    process.send_signal(signal.SIGINT)
    code = process.wait(timeout=120)
    times = sorted(request.time for request in cloud.requests)
    return {
        "cpu_percent_of_a_core": round(100 * share, 1),
        "cpu_seconds_of_taking_up": round(used, 1),
        "peak_megabytes": round(memory),
        "requests": len(times),
        "most_requests_in_any_10_seconds_over_limit": round(_most_in(times, 10.0) / (10 * LIMIT), 2),
        "jobs_looked_at": len({request.path for request in cloud.requests if "/events" in request.path}),
        "exit_code": code,
    }


def _most_in(times: list[float], window: float) -> int:
    return max((bisect_left(times, start + window) - index for index, start in enumerate(times)), default=0)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_megabytes(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
