"""What an emulated service keeps: sessions, models, samplers, checkpoints, and requests that are under way."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.emulator.messages import Answer
from tests.emulator.primitives.trainer import Trainer, Weights


@dataclass
class Session:
    """A session: it is over once it is finished, or once no heartbeat has come for too long."""

    id: str
    metadata: dict[str, str]
    created_at: float = field(default_factory=time.time)
    beat_at: float = field(default_factory=time.time)
    used_at: float = field(default_factory=time.time)
    finished: str | None = None
    models: list[str] = field(default_factory=list)
    samplers: list[str] = field(default_factory=list)

    def used(self) -> None:
        """Note that it was just asked something."""
        self.used_at = time.time()


@dataclass
class Model:
    """A model that learns within a session, and the requests that it has had by their sequence numbers."""

    id: str
    session: Session
    trainer: Trainer
    metadata: dict[str, str]
    seen: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Of each sequence number the digest of the body, and the request's id."""


@dataclass(frozen=True)
class Sampler:
    """Something that answers: weights of a checkpoint, or a base model's own (None)."""

    id: str
    base: str
    weights: Weights | None


@dataclass
class Checkpoint:
    """A checkpoint by its path `tinker://MODEL/KIND/NAME`."""

    path: str
    kind: str
    weights: Weights
    ttl_seconds: int | None = None
    time: float = field(default_factory=time.time)

    @property
    def id(self) -> str:
        """The path without the model."""
        return self.path.split("/", 3)[3]


@dataclass
class Future:
    """A request that was accepted: its work, and its answer once that is done."""

    id: str
    work: Callable[[], Answer | dict[str, Any]]
    done: threading.Event = field(default_factory=threading.Event)
    answer: Answer | None = None


def accepted(future: Future) -> Answer:
    """Return what is answered at once to a request whose work is under way."""
    return Answer(body={"request_id": future.id, "model_id": future.id.rpartition(":")[0]})


def stamp(seconds: float) -> str:
    """Return a time in seconds since 1970 as the service writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
