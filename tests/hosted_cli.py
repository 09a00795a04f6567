"""A folder of hosted runs next to an emulated service, with the real commands that work on them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.record.events import Metrics, StepDone
from runner.record.journal import Record, RunState, read
from tests import stores, waiting, warm
from tests.conftest import pair_row
from tests.emulator import Emulator, Script

Process = subprocess.CompletedProcess[str]
Measured = dict[tuple[int, str], float]


@dataclass(frozen=True)
class Hosted:
    """A user's folder with data in it, and the service that its commands reach."""

    folder: Path
    cloud: Emulator

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables that a command sees."""
        own = {"PYTHONWARNINGS": "ignore", "COLUMNS": "400", "RUNNER_CACHE": str(self.folder / "cache")}
        return os.environ | self.cloud.environment() | own | dict(variables or {})

    def command(self, *line: str, typed: str = "", variables: Mapping[str, str] | None = None) -> Process:
        """Run `python -m …` in the folder to its end; `typed` is its standard input."""
        return warm.run([sys.executable, "-m", *line], cwd=self.folder, env=self.environment(variables), input=typed)

    @contextmanager
    def started(self, *line: str, variables: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """Start `python -m …` in the folder; at the end of the block it is dead."""
        pipe = subprocess.PIPE
        process = warm.Popen(
            [sys.executable, "-m", *line], cwd=self.folder, env=self.environment(variables),
            stdin=pipe, stdout=pipe, stderr=pipe, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait(waiting.SECONDS)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def held(self, run: Path, process: subprocess.Popen[str]) -> None:
        """Wait until a process works on a run."""
        owner = run / "owner.json"
        self.wait(
            lambda: json.loads(owner.read_text("utf-8") or "{}").get("pid") == process.pid,
            f"process {process.pid} to be the owner of {run.name}",
        )

    def run(self, *more: str, code: int = 0) -> Path:
        """Run `python -m runner` with a name of its own and return the run's folder."""
        name = next((each[5:] for each in more if each.startswith("name=")), "one")
        named = [] if f"name={name}" in more else [f"name={name}"]
        process = self.command("runner", *LINE, *named, *more)
        assert process.returncode == code, process.stdout + process.stderr
        return self.of(name)

    def of(self, name: str) -> Path:
        """Return the folder of the run with a name."""
        (found,) = (path for path in self.folder.glob(f"runs/{name}-*") if ".before-" not in path.name)
        return found

    def job(self, run: Path) -> str:
        """Return the id of a run's job at the service."""
        return str(read_state(run).results["create"]["job"])

    def status(self, job: str) -> str:
        """Return the state that a job is in at the service now."""
        return self.cloud.course(self.cloud.jobs[job]).stage(self.cloud.clock.now()).status

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until a condition holds, with an end and a message."""
        waiting.until(condition, what)


LINE = [
    "backend=foundry", "dataset=files", "dataset.train=pairs.jsonl", "dataset.validation=null",
    "dataset.validation_fraction=0.25", "dpo.n_epochs=2", "dpo.batch_size=4", "evaluation.samples=2",
    "tracking=none", "backend.polling.every=0.2", "backend.polling.requests_per_second=1000",
]  # fmt: skip
ALONE = "backend.follow=false"
QUICK = Script(validating_seconds=0.02, queued_seconds=0.05, running_seconds=0.15)
ENDLESS = Script(validating_seconds=0.02, queued_seconds=0.05, running_seconds=3600)


@contextmanager
def hosted(folder: Path, script: Script = QUICK) -> Iterator[Hosted]:
    """Start a service whose jobs go by a script, and write data into a folder."""
    rows = "".join(json.dumps(pair_row(number)) + "\n" for number in range(24))
    (folder / "pairs.jsonl").write_text(rows, "utf-8")
    stores.put_empty(folder)
    with Emulator() as cloud:
        cloud.script = script
        cloud.file_seconds = cloud.deployment_seconds = 0.05
        yield Hosted(folder, cloud)
        assert cloud.violations == []


def sentence(process: Process, code: int = 2) -> str:
    """Return the one sentence of a command that ended with an error."""
    assert process.returncode == code, process.stdout + process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1, process.stderr
    assert "Traceback" not in process.stderr
    return lines[0]


def read_state(run: Path) -> RunState:
    """Return how far a run has come."""
    return RunState(records(run))


def records(run: Path) -> list[Record]:
    """Return what a run's journal holds."""
    return read(run / "journal.jsonl")


def steps(run: Path) -> list[str]:
    """Return the steps that were done, in their order."""
    return [each.event.step for each in records(run) if isinstance(each.event, StepDone)]


def measured(run: Path) -> Measured:
    """Return every value that was measured, each of which must be in the journal once."""
    found: Measured = {}
    for record in records(run):
        if isinstance(record.event, Metrics):
            for name, value in record.event.values.items():
                assert (record.event.step, name) not in found, "a metric was noted twice"
                found[record.event.step, name] = value
    return found


def report(run: Path) -> dict[str, Any]:
    """Return a run's report."""
    found: dict[str, Any] = json.loads((run / "report.json").read_bytes())
    return found
