"""An engine's process: started at a free port of this machine, waited for, and ended, whatever happens."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EADDRINUSE
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from runner.errors import RequestError, ServiceError
from runner.serving import bound, client
from runner.serving.engines import Engine

START_SECONDS = 900
"""The longest that an engine may take to load a model: 70 billion weights from a slow disk."""
END_SECONDS = 10
PORTS = 3
"""How many free ports are tried: two engines that start at once may choose the same."""


class Served(NamedTuple):
    """A model that an engine answers with: the address up to `/v1`, what clients call it, and the engine's process."""

    url: str
    model: str
    process: "subprocess.Popen[bytes]"
    last_words: Callable[[], str] = str
    """Returns of what the engine has printed so far what says most of why it ends."""


@contextmanager
def served(engine: Engine, folder: Path, model: str, port: int = 0) -> Iterator[Served]:
    """Serve an export within the block; `port` 0 takes one that is free.

    Raises `RequestError` where the port is taken, `ServiceError` with the engine's last words where it does not start.
    """
    with TemporaryFile() as log:
        process, url = _started(engine, folder, model, port, log)
        try:
            yield Served(f"{url}/v1", engine.called(folder, model), process, partial(_last, engine, log))
        finally:
            _end(process)


def _started(
    engine: Engine, folder: Path, model: str, port: int, log: IO[bytes]
) -> "tuple[subprocess.Popen[bytes], str]":  # fmt: skip
    """Return the process of an engine that answers, and where; raises what `served` raises."""
    # Offline: the export is whole, and an engine that asked a hub for more would serve something else.
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | dict(engine.environment)
    for attempt in range(PORTS):
        log.seek(0)  # of the engine before, which shares the place
        log.truncate()
        at = free(port)
        # By its path and without `site`: a small process that starts at once.
        line = [sys.executable, "-I", "-S", bound.__file__, *engine.command(folder.absolute(), model, at)]
        process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, cwd=folder.absolute().parent,
            start_new_session=True,
        )  # fmt: skip
        try:
            _wait(process, f"http://127.0.0.1:{at}", engine, log)
            return process, f"http://127.0.0.1:{at}"
        except BaseException as error:
            _end(process)
            if not (isinstance(error, ServiceError) and _is_taken(at, error)):
                raise
            if port:
                free(port)  # raises, and says what helps
            if port or attempt == PORTS - 1:
                raise
    raise AssertionError("unreachable")


def _is_taken(port: int, error: ServiceError) -> bool:
    """Say whether an engine has ended because another process took its port before it did."""
    if os.strerror(EADDRINUSE) in str(error):
        return True
    # Not every engine says that this is why.
    try:
        free(port)
    except RequestError:
        return True
    return False


def _wait(process: "subprocess.Popen[bytes]", url: str, engine: Engine, log: IO[bytes]) -> None:
    # Engines answer /health only once the weights are loaded; before that it refuses, or says 503.
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ServiceError(
                f"{engine.name}: ended with {process.returncode} before it answered: {_last(engine, log)}"
            )
        with suppress(ServiceError):
            client.get(f"{url}/health")
            return
        time.sleep(0.1)
    raise ServiceError(f"{engine.name}: did not answer within {START_SECONDS} s: {_last(engine, log)}")


def _last(engine: Engine, log: IO[bytes]) -> str:
    log.seek(0)
    return engine.reason(log.read().decode(errors="replace")) or "it said nothing"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End an engine with what it has started: its whole session, first asked, then killed."""
    # Both, as what an engine has started may outlive it: vLLM's process that holds the GPU, say.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):  # the latter of macOS, where all of them have ended
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    assert process.stdin is not None
    process.stdin.close()


def free(port: int) -> int:
    """Return a port that can be had, another one for 0. Raises `RequestError` where it is taken."""
    with socket.socket() as tried:
        # As servers do: one that has just ended leaves its connections in TIME_WAIT, which is no reason to refuse.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise RequestError(
                f"port: {port} cannot be had ({error.strerror}); port=0 takes one that is free."
            ) from error
        found: int = tried.getsockname()[1]
        return found
