"""The engines that serve a model, one module each, which ends with `ENGINE = …`. Nowhere else is a list of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar

from runner.errors import RequestError


class Engine(ABC):
    """A program that loads an export and answers at an OpenAI-compatible address of this machine."""

    name: ClassVar[str]
    form: ClassVar[str]
    """The exporter whose folder it loads."""
    environment: ClassVar[Mapping[str, str]] = {}
    """Variables that its process gets in addition."""

    @abstractmethod
    def demand(self) -> None:
        """Raise `RequestError` where it is not installed, with how to install it."""

    @abstractmethod
    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return the command line that serves an export at a port of this machine; clients call the model by a name.

        `folder` is absolute; the process starts in the folder that holds it.
        """

    def called(self, folder: Path, model: str) -> str:
        """Return what clients have to call the model: the name that is wanted, where the engine lets one choose."""
        return model


def names() -> list[str]:
    """Return the name of every engine."""
    return [module.name for module in iter_modules(__path__)]


@cache
def load(name: str) -> Engine:
    """Return an engine. Raises `RequestError` with those that there are."""
    if name not in names():
        raise RequestError(f"engine: got {name}; allowed: {', '.join(names())}.")
    # None is imported for its libraries: whether they are there, `demand` says.
    found: Engine = import_module(f"{__name__}.{name}").ENGINE
    return found
