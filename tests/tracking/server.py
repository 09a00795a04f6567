"""A real PostgreSQL and a real MLflow server before it, on this machine, for the tests of a shared store."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests import waiting, warm

NOBODY = 65534


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs, None where it is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(debian[-1]) if debian else shutil.which("initdb")
    return Path(found).parent if found else None


class Postgres:
    """A database of its own in a folder; PostgreSQL refuses to be run by root, so then it is nobody's."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.port, self._data, self._bin = free_port(), folder / "data", bin_folder
        folder.mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        self._run("initdb", "--auth=trust", "--username=mlflow", "--no-sync", str(self._data))
        options = f"-p {self.port} -k {self._data} -c listen_addresses=127.0.0.1 -c max_connections=200"
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self._data / "log"), "-o", options)
        self.uri = f"postgresql://mlflow@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        """End it."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", str(self._data))

    def _run(self, program: str, *arguments: str) -> None:
        root = os.geteuid() == 0
        subprocess.run(
            [str(self._bin / program), *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=120,
            user=NOBODY if root else None, group=NOBODY if root else None, extra_groups=[] if root else None,
        )  # fmt: skip


MLFLOW = """
import os, runpy, sys
import mlflow.server
from mlflow.cli import cli

def here(line, extra_env, **_):
    os.environ.update(extra_env)
    sys.argv = line[2:]  # python -m uvicorn …
    runpy.run_module("uvicorn", run_name="__main__")

mlflow.server._exec_cmd = here
cli()
"""
"""The command `mlflow`, whose server is this process: it would start an interpreter that imports all of it again."""


class Server:
    """An MLflow server; it can be killed, and started again at the same place."""

    def __init__(self, folder: Path, store: str) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._line = [sys.executable, "-c", MLFLOW, "server", "--backend-store-uri", store, "--workers", "1",
                      "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1",
                      "--port", str(self.port)]  # fmt: skip
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # Without its own job runner, whose six processes import all of MLflow for nothing.
        environment = os.environ | {"PYTHONWARNINGS": "ignore", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = warm.Popen(
                self._line, stdout=log, stderr=log, cwd=self._folder, env=environment, start_new_session=True
            )
        waiting.until(self.answers, f"the MLflow server to answer; its log is {log.name}", process=self._process)

    def answers(self) -> bool:
        """Return whether it is up."""
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """Kill it."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)
