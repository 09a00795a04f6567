"""Real commands without the start of an interpreter: `run` and `Popen` are those of `subprocess`, but fork.

A fresh interpreter spends 2 to 8 seconds of processor time on importing Hydra, MLflow, torch and the Azure SDK. Here
a server per test process imports them and the runner once, and forks for each command. The child is a process of its
own: it has its own pid, environment, working directory, standard streams and signals, and it ends as an interpreter
ends. Nothing of `runner` is called before the fork, so that no cache or setting of one command reaches another.

A command that the server cannot stand for starts a fresh interpreter instead: another executable, options before
`-m` or `-c`. A variable that is read while a library is imported (`READ_AT_IMPORT`) cannot differ from the server's.
"""

import atexit
import inspect
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SECONDS = 240
"""The longest that a command may take on a busy machine; the default of `run`."""
START_SECONDS = 300
"""The longest that the server may take to import; 15 s on a quiet machine."""

LIGHT = (
    "hydra.main", "hydra.core.plugins", "hydra._internal.hydra", "hydra._internal.utils", "omegaconf", "msgspec.json",
    "hydra._internal.core_plugins.basic_launcher", "hydra._internal.core_plugins.basic_sweeper", "antlr4.LL1Analyzer",
    "hydra._internal.core_plugins.importlib_resources_config_source", "hydra._internal.logging_config",
    "importlib.metadata", "importlib.readers", "concurrent.futures.thread", "multiprocessing.reduction", "numpy",
    "rich.progress", "rich.table", "rich.live", "filelock", "dotenv", "jinja2.sandbox", "jinja2.ext", "tokenizers",
)  # fmt: skip
"""What a plan imports of other people's: 0.7 s of processor time."""
ALL = (
    *LIGHT, "pyarrow.parquet", "safetensors.torch", "scipy.stats", "torch", "torch.distributed",
    "torch.utils.checkpoint", "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama",
    "transformers.generation", "peft.tuners.lora", "mlflow.tracking", "mlflow.tracking._tracking_service.client",
    "mlflow.store.tracking.sqlalchemy_store", "mlflow.pyfunc", "openai.resources.responses", "azure.identity",
    "azure.ai.projects", "azure.mgmt.cognitiveservices", "optuna", "joblib", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "mpl_toolkits.mplot3d", "sqlalchemy.dialects.sqlite", "alembic.migration",
    "mlflow.store.db.utils", "mlflow.store.artifact.local_artifact_repo", "httpx2", "tinker.proto.tinker_public_pb2",
)  # fmt: skip
"""What all commands import of other people's: 16 s of processor time; what is not installed is left out."""

READ_AT_IMPORT = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TORCH_", "PYTORCH_", "CUDA_", "MKL_", "KMP_", "OPENBLAS_",
                  "PYTHON", "LC_", "LANG", "MPL", "LD_", "NUMEXPR_", "XDG_", "HOME")  # fmt: skip
HONOURED = ("PYTHONPATH", "PYTHONWARNINGS", "PYTHONUNBUFFERED", "TORCHELASTIC_USE_AGENT_STORE")
"""Variables that match `READ_AT_IMPORT`, but that the child can still obey."""
WITHOUT_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keeps numpy's and pyarrow's imports from starting a thread: a process with threads is not to be forked."""


_SIGNATURE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen`, whose process is forked by the warm server where that results in the same.

    It overrides what CPython 3.11 to 3.14 do to start a child and to wait for it; the rest is theirs.
    """

    _status: int | None = None  # the pipe that brings the exit status; None of a fresh interpreter

    def __init__(self, line: Any, *, imports: tuple[str, ...] = ALL, **options: Any) -> None:
        """Start `line`; `imports` is what it finds imported, `LIGHT` for a command that only plans."""
        self._imports = imports
        super().__init__(line, **options)

    def _execute_child(self, *given: Any) -> None:
        asked = _SIGNATURE.bind(self, *given).arguments
        environment = dict(os.environ if asked["env"] is None else asked["env"])
        special = asked["preexec_fn"] or asked["pass_fds"] or asked["shell"]
        if special or not is_warm(asked["args"]):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        server = _server(self._imports)
        server.check(environment)
        pipes = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        order = {
            "line": [str(each) for each in asked["args"][1:]],
            "folder": os.fspath(asked["cwd"] or Path.cwd()),
            "environment": environment,
            "session": bool(asked["start_new_session"]),
        }
        # -1 is a stream that the child inherits.
        streams = [pipe if pipe != -1 else number for number, pipe in enumerate(pipes)]
        self.pid, self._status = server.fork(order, streams)
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in ends))  # type: ignore[attr-defined]

    def _try_wait(self, flags: int) -> tuple[int, int]:
        if self._status is None:
            return super()._try_wait(flags)  # type: ignore[misc, no-any-return]
        with selectors.DefaultSelector() as ready:
            ready.register(self._status, selectors.EVENT_READ)
            if not ready.select(0 if flags & os.WNOHANG else None):
                return 0, 0
        reported = os.read(self._status, 4)
        os.close(self._status)
        # Without a word the server is gone, and its children with it.
        return self.pid, struct.unpack("i", reported)[0] if reported else signal.SIGKILL

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self._status is None:
            return super()._internal_poll()  # type: ignore[misc, no-any-return]
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def run(
    line: Sequence[str | Path],
    *,
    input: str | None = None,
    check: bool = False,
    timeout: float = SECONDS,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run `[sys.executable, "-m" or "-c", …]` to its end, as `subprocess.run` does with text and captured streams.

    Raises `AssertionError` with what was written so far where it takes longer than `timeout` seconds.
    """
    pipe = subprocess.PIPE
    options = {"stdin": pipe if input is not None else subprocess.DEVNULL, "stdout": pipe, "stderr": pipe} | options
    options.pop("capture_output", None)
    with Popen(line, text=True, **options) as process:
        try:
            output, errors = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            raise AssertionError(f"{shown(line)} did not end within {timeout} s:\n{output}\n{errors}") from None
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(list(line), process.returncode, output, errors)
    if check:
        assert done.returncode == 0, f"{shown(line)} ended with {done.returncode}:\n{output}\n{errors}"
    return done


def shown(line: Sequence[object]) -> str:
    """Return a command line as a message names it."""
    text = " ".join(map(str, line[1:]))
    return text if len(text) < 400 else f"{text[:400]} …"


def is_warm(line: Any) -> bool:
    """Return whether a command line is one that the server can fork: this interpreter with a module or a program."""
    if isinstance(line, (str, bytes, os.PathLike)) or len(line) < 3:
        return False
    return str(line[0]) == sys.executable and str(line[1]) in ("-m", "-c")


def _at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_AT_IMPORT) and name not in HONOURED and not name.startswith("PYTEST")
    }


class _Server:
    """The connection to the process that forks."""

    def __init__(self, imports: tuple[str, ...]) -> None:
        ours, theirs = socket.socketpair()
        kept = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", *HONOURED)}
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm_server", str(theirs.fileno()), *imports], cwd=ROOT,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env=kept | WITHOUT_THREADS,
            )  # fmt: skip
        self._imported_with = _at_import(os.environ)
        self._socket, self._lock = ours, threading.Lock()
        ours.settimeout(START_SECONDS)
        try:
            self._receive(1, "its imports")
        except BaseException:
            self.process.kill()
            raise
        ours.settimeout(60)

    def check(self, environment: Mapping[str, str]) -> None:
        """Raise where a library would have been imported otherwise in this environment."""
        differing = _at_import(environment).items() ^ self._imported_with.items()
        names = ", ".join(sorted({name for name, _ in differing}))
        assert not names, f"{names}: read while libraries are imported; start this command with subprocess"

    def fork(self, order: Mapping[str, Any], streams: list[int]) -> tuple[int, int]:
        """Start a command; return its pid and the pipe that will bring its exit status."""
        read, write = os.pipe()
        payload = json.dumps(order).encode()
        with self._lock:
            socket.send_fds(self._socket, [struct.pack("i", len(payload))], [*streams, write])
            os.close(write)
            self._socket.sendall(payload)
            (pid,) = struct.unpack("i", self._receive(4, "a fork"))
        return pid, read

    def _receive(self, count: int, what: str) -> bytes:
        try:
            found = self._socket.recv(count, socket.MSG_WAITALL)
        except TimeoutError:
            raise AssertionError(f"tests/warm.py: waited {self._socket.gettimeout()} s for {what}") from None
        assert len(found) == count, f"tests/warm.py: the server ended ({self.process.poll()}) instead of {what}"
        return found

    def close(self) -> None:
        """End it and all that it started."""
        self._socket.close()
        self.process.wait(30)


_SERVERS: dict[tuple[str, ...], _Server] = {}


@atexit.register
def _close() -> None:
    while _SERVERS:
        _SERVERS.popitem()[1].close()


def _server(imports: tuple[str, ...]) -> _Server:
    if imports in _SERVERS and _SERVERS[imports].process.poll() is not None:
        _SERVERS.pop(imports).close()
    if imports not in _SERVERS:
        _SERVERS[imports] = _Server(imports)
    return _SERVERS[imports]
