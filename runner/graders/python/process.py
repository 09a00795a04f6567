"""The parent's side of the confined process: a deadline for every grade, and another process after one that failed."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import IO

import msgspec

from runner.errors import RunnerError
from runner.graders import Grade, Json

_CHILD = Path(__file__).with_name("child.py")
_ENVIRONMENT = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""All that the child sees. numpy would start threads, which it may not, and end the process."""
_START_SECONDS = 60
_LONGEST_REPLY = 1 << 16


class _Reply(msgspec.Struct):
    id: int
    score: float | None = None
    error: str = ""


class _Failed(Exception):
    """The process gave no answer; the message says why, and it is to be replaced."""


class Process:
    """A confined process that grades by a Python source, one answer at a time, from any thread.

    `timeout` is in seconds for one grade, `memory` in MB for all of the process.
    """

    def __init__(self, source: str, timeout: float, memory: int) -> None:
        self._setup = {"source": source, "timeout": timeout, "memory": memory << 20}
        self._timeout = timeout
        self._lock = Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._asked = 0

    def grade(self, sample: Mapping[str, Json], item: Mapping[str, Json]) -> Grade:
        """Return the score, or as an error what went wrong; raises `RunnerError` if no process can be started."""
        with self._lock:
            child = self._child or self._start()
            self._asked += 1
            request = json.dumps({"id": self._asked, "sample": sample, "item": item}).encode() + b"\n"
            try:
                reply = self._ask(child, request, self._asked, self._timeout)
            except _Failed as error:
                self._end()
                return Grade(None, error=str(error))
            if reply.score is None:
                return Grade(None, error=reply.error or "gave no score")
            return Grade(reply.score)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        # -B: no files of byte code. A session of its own, so that Ctrl-C reaches only the parent.
        self._child = child = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )
        for pipe in (child.stdin, child.stdout):
            # A source that reads nothing, or writes without end, must not hold the parent beyond the deadline.
            os.set_blocking(_pipe(pipe).fileno(), False)
        self._asked = 0
        try:
            ready = self._ask(child, json.dumps(self._setup).encode() + b"\n", 0, _START_SECONDS)
        except _Failed as error:
            ready = _Reply(0, error=str(error))
        if ready.error:
            self._end()
            raise RunnerError(f"python grader: its process could not be started: {ready.error}.")
        return child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            # Not asked to end: it may be in an endless loop, and has nothing to save.
            child.kill()
            with child:
                pass  # closes its pipes and waits

    def _ask(self, child: subprocess.Popen[bytes], request: bytes, number: int, seconds: float) -> _Reply:
        """Return the reply to a request; raises `_Failed` without one in time, or if the process ended."""
        deadline, read = time.monotonic() + seconds, b""
        waiting = memoryview(request)[_written(child, request) :]
        with selectors.DefaultSelector() as selector:
            selector.register(_pipe(child.stdout), selectors.EVENT_READ)
            if waiting:
                selector.register(_pipe(child.stdin), selectors.EVENT_WRITE)
            while ready := selector.select(max(0.0, deadline - time.monotonic())):
                for key, _ in ready:
                    # Reading while writing: two full pipes of 64 kB would wait for each other.
                    if key.fileobj is child.stdout:
                        read += _received(child)
                    elif not (waiting := waiting[_written(child, waiting) :]):
                        selector.unregister(key.fileobj)
                *lines, read = read.split(b"\n")
                for reply in map(_decoded, lines):
                    # By its number: what a source may have written to the pipe before is not taken for this answer.
                    if reply.id == number:
                        return reply
                if len(read) > _LONGEST_REPLY:
                    raise _Failed("wrote to the pipe of its replies")
                if time.monotonic() > deadline:
                    break
        raise _Failed(f"took longer than {seconds:g} s")


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # Popen was asked for both
    return stream


def _written(child: subprocess.Popen[bytes], waiting: bytes | memoryview) -> int:
    try:
        return os.write(_pipe(child.stdin).fileno(), waiting)
    except BlockingIOError:
        return 0
    except BrokenPipeError:
        raise _Failed(_how_ended(child)) from None


def _received(child: subprocess.Popen[bytes]) -> bytes:
    data = os.read(_pipe(child.stdout).fileno(), _LONGEST_REPLY)
    if not data:
        raise _Failed(_how_ended(child))
    return data


def _how_ended(child: subprocess.Popen[bytes]) -> str:
    try:
        code = child.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return "closed the pipe of its replies"
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended its process with exit code {code}"


def _decoded(line: bytes) -> _Reply:
    try:
        return msgspec.json.decode(line, type=_Reply)
    except msgspec.DecodeError:
        raise _Failed("wrote to the pipe of its replies") from None
