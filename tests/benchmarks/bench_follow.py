"""One process follows 500 hosted jobs: its memory, its share of a core, and the requests it sends.

    python tests/benchmarks/bench_follow.py [--jobs 500] [--seconds 240]

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
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.backends.foundry.rehearsal import job_of, write_data
from tests.emulator import Emulator, Script

LIMIT = 5.0
"""Requests a second: the default of `backend.polling.requests_per_second`."""
TAKING_UP_SECONDS = 60.0


def main() -> None:
    """Create the jobs, let one process follow them, measure it and print a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=240.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Emulator(style="lax") as cloud:
        cloud.script = Script(queued_seconds=5, running_seconds=7200, steps=[{"train_loss": 0.5}] * 400)
        os.environ |= cloud.environment() | {"RUNNER_CACHE": f"{folder}/cache"}
        os.chdir(folder)
        write_data(Path(folder))
        _create(Path(folder), asked.jobs)
        cloud.requests.clear()
        print(json.dumps({"jobs": len(cloud.created_jobs), **_follow(cloud, asked.seconds)}))


def _create(folder: Path, count: int) -> None:
    from runner.__main__ import run

    for number in range(count):
        with redirect_stdout(StringIO()):
            settings = ["backend.follow=false", "tracking=mlflow", f"seed={number}"]
            fast = ["backend.polling.requests_per_second=1000", "backend.polling.every=0.2"]
            job = job_of(folder, folder / "runs", *settings, *fast)
            run(job)
            _slow_down(job.folder / "request.json")
    time.sleep(5)


def _slow_down(path: Path) -> None:
    """Follow with the default limits, not with those that made creating quick."""
    asked = json.loads(path.read_bytes())
    asked["backend"]["polling"] |= {"requests_per_second": LIMIT, "every": 15.0, "patience": 900.0}
    path.write_text(json.dumps(asked))


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
