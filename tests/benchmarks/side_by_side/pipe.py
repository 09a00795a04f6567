"""Two processes that take optimizer steps in turn: each waits at its gate until it may continue.

The child writes a line of JSON when it waits: first what it is ready with, then what each step was, with its seconds
by the clock and those of all cores, at last its peak of memory. The parent writes a line for each step that it wants.
A child that waits uses no processor.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


class Gate:
    """The child's end. From one wait to the next is a step, with all that happens between."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # what libraries print goes to the log
        self._since: tuple[float, float] | None = None

    def wait(self, values: Mapping[str, Any]) -> None:
        """Report the step that ended here, or at first what there is to know, and wait for leave to continue."""
        self._report(values)
        if not sys.stdin.readline():
            raise SystemExit("the parent is gone")
        self._since = time.perf_counter(), time.process_time()

    def end(self, values: Mapping[str, Any], peak_bytes: int) -> None:
        """Report the last step and the peak of memory."""
        self._report(values)
        self._send({"peak_bytes": peak_bytes})

    def _report(self, values: Mapping[str, Any]) -> None:
        taken = {}
        if self._since is not None:
            seconds, cpu_seconds = self._since
            taken = {"seconds": time.perf_counter() - seconds, "cpu_seconds": time.process_time() - cpu_seconds}
        self._send({**taken, **values})

    def _send(self, message: Mapping[str, Any]) -> None:
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()


class KilledError(SystemExit):
    """A side was killed, as the system does where memory is full."""


class Child:
    """The parent's end: a process that waits at its gate, ended when the block is left."""

    def __init__(self, module: str, asked: Mapping[str, Any], folder: Path, variables: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.module, self.log = module, folder / "log.txt"
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(asked)], cwd=folder, env=environment(variables), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> "Child":
        try:
            self.facts = self._read()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def step(self) -> dict[str, Any]:
        """Let it take one optimizer step; return what it says of it."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # then there is nothing to read either, which says more
            self.process.stdin.write("step\n")
            self.process.stdin.flush()
        return self._read()

    def peak_bytes(self) -> int:
        """Return the peak of its memory, once it has taken its last step."""
        peak: int = self._read()["peak_bytes"]
        return peak

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            reported = "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-12:])
            status = self.process.wait()
            kind = KilledError if status == -signal.SIGKILL else SystemExit
            raise kind(f"{self.module}: ended with {status}:\n{reported}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child: without hubs, progress bars and the user's own store of runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE_", "MLFLOW_", "WANDB_"))}
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return kept | quiet | {"PYTHONPATH": path} | dict(variables)


def peak_resident_bytes() -> int:
    """Return the most memory this process ever held: its own, without what it was started from.

    `ru_maxrss` is handed down by a process that becomes another one, so the system's own account goes first.
    """
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run(command: list[str], folder: Path, variables: Mapping[str, str]) -> tuple[float, int]:
    """Run a command to its end; return its seconds by the clock and the peak of its memory in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, cwd=folder, env=environment(variables), stdout=stream, stderr=stream)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        reported = "\n".join(log.read_text("utf-8", "replace").splitlines()[-12:])
        raise SystemExit(f"{' '.join(command[:4])} …: ended with {process.returncode}:\n{reported}")
    return time.perf_counter() - began, used.ru_maxrss if sys.platform == "darwin" else used.ru_maxrss * 1024
