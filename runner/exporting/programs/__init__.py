"""The programs that exports are made for, one module each, which ends with its class: `PROGRAM = …`.

Each runs in its own process.
"""

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

import msgspec

from runner.errors import ProofError, RequestError
from runner.exporting.evidence import Evidence, Questions
from runner.serving.engines import Engine

QUIET = {"ORT_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"}
"""ONNX Runtime 1.32 reports what it loads to mobile.events.data.microsoft.com, on Linux, too, unless asked not to.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
"""


FORCED = 1e4
"""Added to a logit, more than any model's logits differ by: the token is said for sure."""


class Program(ABC):
    """A program that loads an export and answers: by its own template, tokenizer and arithmetic, none of ours."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine
        """The engine of `runner.serve` that was asked for, of the same name; None where none was."""

    @abstractmethod
    def demand(self) -> None:
        """Raise `RequestError` where it is not there, with how to install it."""

    @abstractmethod
    def evidence(self, folder: Path, asked: Questions) -> Evidence:
        """Return what the export in a folder says to questions.

        Raises `ProofError` where the program cannot load it, or fails.
        """

    @abstractmethod
    def version(self) -> str:
        """Return name and version of the packages that loaded it."""


class Packages(Program):
    """A program that is Python packages: its module is called as `python -m MODULE FOLDER`, and ends in `answer`."""

    packages: ClassVar[tuple[str, ...]]
    """Those that load an export, the one that names it first."""
    extra: ClassVar[str]
    """What installs them: `runner[EXTRA]`."""

    def demand(self) -> None:
        """Raise `RequestError` where one is not installed, or the engine that was asked for is not there."""
        if self.engine:
            self.engine.demand()
        try:
            self.version()
        except PackageNotFoundError as error:
            raise RequestError(
                f"{self.packages[0]}: the package {error.name} is not installed; pip install 'runner[{self.extra}]'."
            ) from error

    def version(self) -> str:
        """Return each package with its version."""
        return ", ".join(f"{each} {version(each)}" for each in self.packages)

    def evidence(self, folder: Path, asked: Questions) -> Evidence:
        """Return what the process says; raises `ProofError` with its last line where it fails."""
        # Only `runner` is shared with it: no weight, tokenizer or setting that is in memory here.
        done = called(["-m", type(self).__module__, str(folder)], Path.cwd(), msgspec.json.encode(asked))
        if done.returncode:
            raise ProofError(f"{folder}: {self.packages[0]} cannot use the export: {last_line(done)}")
        return msgspec.json.decode(done.stdout, type=Evidence)


def called(arguments: Sequence[str], folder: Path, asked: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Call Python in a folder with what it reads on standard input; what it prints is kept."""
    line = [sys.executable, "-W", "ignore", *arguments]
    environment = os.environ | QUIET
    return subprocess.run(line, input=asked, capture_output=True, check=False, env=environment, cwd=folder)


def last_line(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Return why a process has failed: a traceback ends with it."""
    return (done.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"])[-1]


def answer(answers: Callable[[str, Questions], Evidence]) -> None:
    """Answer the questions on standard input about the folder on the command line: the process that is called."""
    folder, asked = sys.argv[1], msgspec.json.decode(sys.stdin.buffer.read(), type=Questions)
    output, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no evidence
    output.buffer.write(msgspec.json.encode(answers(folder, asked)))


def load(name: str, engine: Engine | None = None) -> Program:
    """Return a program by the name of its module, with the engine of that name where one was asked for."""
    # By its module's name: an exporter names one, and a user an engine, which is called the same.
    found: type[Program] = import_module(f"{__name__}.{name}").PROGRAM
    return found(engine)
