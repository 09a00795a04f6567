"""The programs that exports are made for, one module each, with `PROGRAM = …`; each runs in its own process."""

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path

from runner.exporting.evidence import Evidence, Questions


class Program(ABC):
    """A program that loads an export and answers: by its own template, tokenizer and arithmetic, none of ours."""

    @abstractmethod
    def demand(self) -> None:
        """Raise `RequestError` where it is not installed, with how to install it."""

    @abstractmethod
    def evidence(self, folder: Path, asked: Questions) -> Evidence:
        """Return what the export in a folder says to questions.

        Raises `ProofError` where the program cannot load it, or fails.
        """

    @abstractmethod
    def version(self) -> str:
        """Return name and version of the packages that loaded it."""


def load(name: str) -> Program:
    """Return a program by the name of its module."""
    # By its module's name: an exporter names one, and a user never does.
    found: Program = import_module(f"{__name__}.{name}").PROGRAM
    return found
