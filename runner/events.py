"""What happens during a run, as values: steps yield them; journal, MLflow and terminal receive them.

`Progress` is for the eye only; the others are kept in the journal and can be replayed from it.
"""

from typing import Any

import msgspec


class Started(msgspec.Struct, frozen=True, tag=True):
    """A process begins, or takes up again, to work on a plan."""

    pid: int
    host: str
    versions: dict[str, str]


class StepStarted(msgspec.Struct, frozen=True, tag=True):
    """A step begins."""

    step: str


class StepDone(msgspec.Struct, frozen=True, tag=True):
    """A step has ended well; `result` is what later steps and a resumed run read."""

    step: str
    key: str
    seconds: float
    result: dict[str, Any]


class Metrics(msgspec.Struct, frozen=True, tag=True):
    """Values measured after `at` optimizer steps, by their full names (`train/loss`, `eval/reward_accuracy`)."""

    at: int
    values: dict[str, float]


class Samples(msgspec.Struct, frozen=True, tag=True):
    """The same prompts answered by the base and by the tuned model."""

    rows: list[dict[str, str]]


class Note(msgspec.Struct, frozen=True, tag=True):
    """Something a user should know: a choice made, a fallback taken."""

    text: str


class Progress(msgspec.Struct, frozen=True, tag=True):
    """How far a step is: `done` of `total`, and figures to show beside it."""

    step: str
    done: int
    total: int
    figures: dict[str, float] = {}


class Stopped(msgspec.Struct, frozen=True, tag=True):
    """The process was asked to stop and did so at a safe point."""

    reason: str


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The process ended on an error; `message` is what the user was told."""

    message: str


Event = Started | StepStarted | StepDone | Metrics | Samples | Note | Progress | Stopped | Failed
