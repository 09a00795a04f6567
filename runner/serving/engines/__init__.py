"""The engines that serve a model, one module each, which ends with its class: `ENGINE = …`.

Nowhere else is a list of them.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar

from runner.errors import RequestError

SHOWN = 400
"""Characters of what an engine has printed that an error quotes."""


class Engine(ABC):
    """A program that loads an export and answers at an OpenAI-compatible address of this machine."""

    name: ClassVar[str]
    form: ClassVar[str]
    """The exporter whose folder it loads."""
    environment: ClassVar[Mapping[str, str]] = {}
    """Variables that its process gets in addition."""

    def __init__(self, program: str | None = None) -> None:
        self.program = program
        """What was named by `program=`, a path or a name; None where nothing was."""

    @abstractmethod
    def demand(self) -> str:
        """Return the path of what is started. Raises `RequestError` where it is not there, with how to install it."""

    @abstractmethod
    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return the command line that serves an export at a port of this machine; clients call the model by a name.

        `folder` is absolute; the process starts in the folder that holds it.
        """

    def called(self, folder: Path, model: str) -> str:
        """Return what clients have to call the model: the name that is wanted, where the engine lets one choose."""
        return model

    def reason(self, said: str) -> str:
        """Return why it has ended, of all that it has printed: the end, as engines print pages before they fail."""
        return " ".join(said.split())[-SHOWN:]


class PackageEngine(Engine):
    """An engine that is Python packages of this environment: its module is called as `python -m MODULE …`."""

    packages: ClassVar[tuple[str, ...]]
    """What it serves with, as it is imported."""

    def demand(self) -> str:
        """Return Python. Raises `RequestError` where a package is not installed, or another program is named."""
        if self.program:
            raise RequestError(
                f"program: got {self.program}, but engine={self.name} is packages of this environment; leave program= "
                "out, or use engine=vllm."
            )
        if missing := [each for each in self.packages if not find_spec(each)]:
            raise RequestError(
                f"engine: {self.name} serves with {', '.join(missing)}, which is not installed; "
                "pip install 'runner[export]'."
            )
        return sys.executable

    def module(self, *arguments: str) -> list[str]:
        """Return its module as a command."""
        return [sys.executable, "-W", "ignore", "-m", type(self).__module__, *arguments]


def names() -> list[str]:
    """Return the name of every engine."""
    return [module.name for module in iter_modules(__path__)]


def load(name: str, program: str | None = None) -> Engine:
    """Return an engine, with the program that was named for it. Raises `RequestError` with those that there are."""
    if name not in names():
        raise RequestError(f"engine: got {name}; allowed: {', '.join(names())}.")
    # None is imported for its libraries: whether they are there, `demand` says.
    found: type[Engine] = import_module(f"{__name__}.{name}").ENGINE
    return found(program)
