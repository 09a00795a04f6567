"""A program that is an engine's server, asked over HTTP on this machine as `runner.serve` starts it."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, TypeVar

from runner.errors import ProofError, ServiceError
from runner.exporting.evidence import Evidence, Questions
from runner.exporting.programs import Program
from runner.serving import client, engines
from runner.serving.client import Json
from runner.serving.engines import Engine
from runner.serving.server import Served, served

Form = TypeVar("Form")
MODEL = "export"
"""What the model is called while it is asked."""


class Asked(ABC):
    """A server that is asked, at its address without `/v1`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def evidence(self, asked: Questions) -> Evidence:
        """Return what it says to questions. Raises `ServiceError` where it fails."""

    def post(self, name: str, body: dict[str, Json], form: type[Form], seconds: float = client.SECONDS) -> Form:
        """Return the answer to a JSON request. Raises `ServiceError` where there is none, or one of another form."""
        return client.decoded(client.post(f"{self.url}/{name}", body, seconds), self.url, form)


class ByEngine(Program):
    """An engine that says more than clients ask for: the tokens of a conversation and their log-probabilities."""

    name: ClassVar[str]
    """Of the engine."""
    asked: ClassVar[type[Asked]]

    def __init__(self, engine: Engine | None = None) -> None:
        super().__init__(engine)
        self.started = engine or engines.load(self.name)

    def demand(self) -> None:
        """Raise `RequestError` where it is not there."""
        self.started.demand()

    def evidence(self, folder: Path, asked: Questions) -> Evidence:
        """Return what the server says; raises `ProofError` where it cannot load the export, or fails."""
        try:
            with served(self.started, folder, MODEL) as found:
                return self._asked(found, asked)
        except ServiceError as error:
            raise ProofError(f"{folder}: {self.name} cannot use the export: {error}") from error

    def _asked(self, found: Served, asked: Questions) -> Evidence:
        try:
            return self.asked(found.url.removesuffix("/v1")).evidence(asked)
        except ServiceError as error:
            raise ServiceError(f"{error}; it printed: {found.last_words()}") from error
