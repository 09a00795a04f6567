"""kill -9 wherever it can strike a hosted run: one job per plan, one file per content, the same metrics."""

import json
import os
import queue
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

pytest.importorskip("azure.ai.projects")

from runner.record.events import StepDone
from runner.record.journal import read
from tests import warm
from tests.emulator import UNLIMITED, Emulator
from tests.emulator.messages import Reply, Request
from tests.hosted.rehearsal import REINFORCED, Ended, Make, kind, secrets_in, standing
from tests.hosted.test_faults import STEPS

pytestmark = pytest.mark.slow

SECONDS = 120
"""The longest that one process may work on a run on a busy machine; then it is ended by SIGALRM."""

FORK_AND_CARRY_OUT = """
import gc, json, os, signal, sys
from pathlib import Path
signal.alarm(2 * int(sys.argv[1]))
from runner.backends.foundry import connect
from runner.record.events import Progress
from tests.hosted.rehearsal import DEPLOYED, carry_out, kind, planned as planned_in

OVERRIDES = sys.argv[2:] or [DEPLOYED, "dpo.n_epochs=1", "dpo.batch_size=12"]

def planned(seed):
    return planned_in(Path.cwd(), Path("runs"), *OVERRIDES, seed=seed)

def kill_after(fatal):
    heard = 0
    def listen(record):
        nonlocal heard
        heard += not isinstance(record.event, Progress)  # which no journal keeps
        if fatal and fatal in (heard, kind(record.event)):
            os.kill(os.getpid(), signal.SIGKILL)
    return listen

first = carry_out(planned(0))  # imports what is imported late, once for all that are forked
assert first.code == 0, first.message
connect.close()
gc.freeze()
signal.alarm(0)
print("ready", flush=True)
for line in sys.stdin:
    seed, fatal = json.loads(line)
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(sys.argv[1]))
        ended = carry_out(planned(seed), kill_after(fatal))
        print(ended.message, file=sys.stderr, flush=True)
        os._exit(ended.code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Runs:
    """Hosted runs by their seeds, each of which makes another plan; each process that works on one is forked."""

    def __init__(self, forking: "warm.Popen") -> None:
        self._orders, self._answers = forking.stdin, forking.stdout
        self.pids: queue.Queue[int] = queue.Queue()
        assert self._next_line() == "ready"

    def carry_out(self, seed: int, kill_after: int | str = 0) -> int:
        """Carry out what is left of a run, and return the exit code.

        With `kill_after` the process kills itself once it has noted so many records in the journal, or one of a kind.
        """
        assert self._orders
        self._orders.write(json.dumps([seed, kill_after]) + "\n")
        self._orders.flush()
        self.pids.put(int(self._next_line()))
        return int(self._next_line())

    def _next_line(self) -> str:
        assert self._answers
        line: str = self._answers.readline()
        assert line, "the process that forks has ended; what it wrote on standard error says why"
        return line.strip()


@contextmanager
def runs_in(tmp_path: Path, *overrides: str) -> Iterator[Runs]:
    """Start the process that forks, over the data in a folder, before the service that the environment leads to."""
    line = [sys.executable, "-c", FORK_AND_CARRY_OUT, str(SECONDS), *overrides]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    with warm.Popen(line, cwd=tmp_path, env=environment, stdin=PIPE, stdout=PIPE, text=True) as forking:
        yield Runs(forking)
        forking.kill()


def assert_alike(folder: Path, cloud: Emulator, count: int) -> Ended:
    """Require of so many runs one job and two files each, no step done twice, and the same metrics; return the last."""
    runs = [Ended(0, "", each.parent) for each in sorted(folder.glob("runs/*/journal.jsonl"), key=begun)]
    for run in runs:
        done = [each.event.step for each in read(run.folder / "journal.jsonl") if isinstance(each.event, StepDone)]
        assert done == STEPS, run
        assert run.metrics == runs[0].metrics, run
        assert len(run.samples) == 2, run
    assert len(runs[0].metrics) > 10
    plans = {job.metadata["runner_plan_id"] for job in cloud.created_jobs if job.metadata}
    assert len(plans) == len(cloud.created_jobs) == len(runs) == count
    assert len(cloud.created_files) == 2 * count
    assert not standing(cloud)
    assert cloud.violations == []
    return runs[-1]


def begun(journal: Path) -> float:
    return read(journal)[0].time


def test_after_a_kill_behind_each_kind_of_record_the_same_command_results_in_the_same(
    make: Make, tmp_path: Path
) -> None:
    cloud = make()
    cloud.limits = UNLIMITED
    with runs_in(tmp_path) as runs:
        (first,) = tmp_path.glob("runs/*/journal.jsonl")
        kinds = dict.fromkeys(kind(record.event) for record in read(first))
        assert {"Intent file", "Created file", "Intent job", "Created job", "Created deployment"} < kinds.keys()
        for number, fatal in enumerate(kinds, 1):
            cloud.files.clear()  # else a run would find the files of the one before, and upload nothing
            assert runs.carry_out(number, kill_after=fatal) == -signal.SIGKILL
            assert runs.carry_out(number) == 0
    assert_alike(tmp_path, cloud, 1 + len(kinds))


@pytest.mark.exhaustive
def test_after_a_kill_behind_any_record_of_the_journal_the_same_command_results_in_the_same(
    make: Make, tmp_path: Path
) -> None:
    cloud = make()
    cloud.limits = UNLIMITED
    with runs_in(tmp_path) as runs:
        for number in count(1):
            cloud.files.clear()
            code = runs.carry_out(number, kill_after=number)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            assert runs.carry_out(number) == 0
    undisturbed = assert_alike(tmp_path, cloud, 1 + number)
    # Which of a job's states are seen depends on when the service is asked: a run may have a record more or less.
    assert len(STEPS) < len(read(undisturbed.folder / "journal.jsonl")) < number


class Deadly(Emulator):
    """A service whose client is killed with the n-th request for a change: `before` it is carried out, or `after`."""

    moment, fatal, changes = "before", 0, 0
    pids: "queue.Queue[int]"

    def reply(self, request: Request) -> Reply:
        """Answer one request."""
        self.changes += request.method != "GET"
        if request.method == "GET" or self.changes != self.fatal:
            return super().reply(request)
        reply = super().reply(request) if self.moment == "after" else Reply(way="reset")
        os.kill(self.pids.get(timeout=SECONDS), signal.SIGKILL)
        return reply


# Killed before a change is carried out is killed behind the record of what is intended, which the test above does.
@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.exhaustive), "after"])
def test_after_a_kill_before_or_after_any_change_at_the_service_the_same_command_results_in_the_same(
    moment: str, make: Make, tmp_path: Path
) -> None:
    cloud = make(Deadly)
    cloud.limits = UNLIMITED
    assert isinstance(cloud, Deadly)
    cloud.moment = moment
    with runs_in(tmp_path) as runs:
        for number in count(1):
            cloud.files.clear()
            cloud.changes, cloud.fatal, cloud.pids = 0, number, runs.pids
            code = runs.carry_out(number)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            cloud.fatal = 0
            assert runs.carry_out(number) == 0
            runs.pids.get()
    assert_alike(tmp_path, cloud, 1 + number)
    changes = ["POST"] * 5 + ["PUT", "DELETE"]  # two files, a job, two answers, and a deployment that comes and goes
    assert number == 1 + len(changes)


def test_a_reinforcement_job_whose_client_is_killed_after_any_change_is_created_once(
    make: Make, tmp_path: Path
) -> None:
    cloud = make(Deadly)
    cloud.limits = UNLIMITED
    assert isinstance(cloud, Deadly)
    cloud.moment = "after"
    with runs_in(tmp_path, *REINFORCED, "backend.validate_grader=true", "evaluation.samples=0") as runs:
        for number in (1, 12, 13, 14):  # the grader checked, then ten answers graded; two files; the job
            cloud.files.clear()
            cloud.changes, cloud.fatal, cloud.pids = 0, number, runs.pids
            assert runs.carry_out(number) == -signal.SIGKILL
            cloud.fatal = 0
            assert runs.carry_out(number) == 0
            runs.pids.get()
    folders = [path.parent for path in tmp_path.glob("runs/*/journal.jsonl")]
    assert {tuple(sorted(Ended(0, "", folder).metrics)) for folder in folders} == {
        tuple(sorted(Ended(0, "", folders[0]).metrics))
    }
    assert len({job.metadata["runner_plan_id"] for job in cloud.created_jobs if job.metadata}) == 5
    assert (len(cloud.created_jobs), len(cloud.created_files)) == (5, 10)
    assert cloud.violations == []


KILLS = 10

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


@pytest.mark.exhaustive
def test_kills_at_random_moments_leave_one_mlflow_run_per_plan_with_the_same_metrics(
    make: Make, tmp_path: Path
) -> None:
    cloud = make()
    cloud.limits = UNLIMITED
    line = [
        "backend=foundry", "dataset=files", f"dataset.train={tmp_path}/train.jsonl",
        f"dataset.validation={tmp_path}/held_out.jsonl", "dpo.n_epochs=2", "dpo.batch_size=4",
        "evaluation.samples=2", "backend.polling.every=0.05", "backend.polling.requests_per_second=1000",
        "backend.deploy=delete_after_eval",
    ]  # fmt: skip
    ran = json.loads(python(tmp_path, FORK_KILL_AND_RUN, str(KILLS), "1", *line))
    assert ran["landed"] >= KILLS
    assert len(cloud.created_jobs) == ran["runs"]
    assert len({job.metadata["runner_plan_id"] for job in cloud.created_jobs if job.metadata}) == ran["runs"]
    assert len(cloud.created_files) == 2
    assert not standing(cloud)
    assert cloud.violations == []
    found: dict[str, Any] = json.loads(python(tmp_path, METRICS))
    undisturbed = found["metrics"]["0"]
    assert len(undisturbed) > 50
    assert set(map(json.dumps, found["metrics"].values())) == {json.dumps(undisturbed)}
    assert (len(found["metrics"]), found["models"]) == (ran["runs"], ran["runs"])
    assert secrets_in(tmp_path) == []


def python(folder: Path, script: str, *arguments: str) -> str:
    """Run a script in a folder and return the last line that it prints."""
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = warm.run([sys.executable, "-c", script, *arguments], cwd=folder, env=environment, check=True, timeout=600)
    return done.stdout.splitlines()[-1]
