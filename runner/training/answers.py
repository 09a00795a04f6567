"""Answers graded while a model learns, so that a grader decides which weights are kept, and not the loss."""

from collections.abc import Generator
from typing import Protocol

from runner.record.events import Event
from runner.training.engine import Engine


class GradedAnswers(Protocol):
    """Prompts that the model answers at each evaluation, and what grades the answers."""

    @property
    def metric(self) -> str:
        """The metric that decides, `eval/GRADER`: the higher the better."""

    def graded(self, engine: Engine, step: int) -> Generator[Event, None, dict[str, float]]:
        """Return the metrics of the answers that an engine's model gives after so many optimizer steps."""
