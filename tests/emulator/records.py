"""What the service keeps: files, jobs and deployments, as plain values; their wire form is in shapes.py."""

import secrets
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Signal(NamedTuple):
    """Something done to a job from outside: `cancelled`, `failed` (with its error), `pause` or `resume`."""

    time: float
    kind: str
    error: dict[str, Any] | None = None


@dataclass
class Script:
    """How a scripted job goes: how long each state lasts, what it measures, how it ends.

    `steps` are rows of metrics (of a reinforcement job nested), `step` is added where it is missing; None makes up a
    plausible course.
    `error` is what a failed job shows; `results` says what becomes of the results file:
    "csv", "base64" (as some services return it), "empty" or "missing".
    """

    validating_seconds: float = 0.2
    queued_seconds: float = 0.3
    running_seconds: float = 0.5
    steps: list[dict[str, Any]] | None = None
    outcome: str = "succeeded"
    error: dict[str, Any] | None = None
    results: str = "csv"
    limit_of_cost: float | None = None
    """Seconds of running after which the service pauses a reinforcement job, once, as its cost has reached a limit."""


@dataclass
class File:
    """An uploaded file, or a job's results. `problem` is what the service found wrong with its content."""

    id: str
    created_at: float
    filename: str
    purpose: str
    content: bytes
    ready_at: float
    kind: str | None = None
    rows: int = 0
    problem: str | None = None
    deleted: bool = False


@dataclass
class Job:
    """A fine-tuning job: what was asked for, what was done to it since; how far it is follows from the clock.

    `settings` are those of the method but for its hyperparameters: a grader, say. `began` is when a scripted job got
    one of the places to run.
    """

    id: str
    created_at: float
    model: str
    base: str
    method: str
    settings: dict[str, Any]
    hyperparameters: dict[str, Any]
    training: File
    validation: File | None
    suffix: str | None
    seed: int
    metadata: dict[str, str] | None
    training_type: str | None
    fine_tuned_model: str
    script: Script
    rejection: dict[str, Any] | None = None
    began: float | None = None
    signals: list[Signal] = field(default_factory=list)
    limited: bool = False
    results: File | None = None


@dataclass
class Deployment:
    """A model that answers under a name; `usable_at` is when inference knows of it.

    While it is moved to another model, `before` answers: a change of a deployment interrupts no caller.
    """

    name: str
    model: dict[str, Any]
    sku: dict[str, Any]
    created_at: float
    ready_at: float
    usable_at: float
    deleted_at: float | None = None
    before: dict[str, Any] | None = None


def identifier(prefix: str) -> str:
    """Return a fresh id: 32 hexadecimal digits behind a prefix, as Azure makes them."""
    return prefix + secrets.token_hex(16)
