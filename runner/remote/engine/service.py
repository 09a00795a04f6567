"""The contract of a service that offers training primitives: what it can be asked, and how it may fail."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from runner.backends import RemoteJob
from runner.errors import ServiceError
from runner.models.chat.image_tokens import PlacedImage
from runner.record.samples import Sampling
from runner.training.engine import Adam, Sampled

# Doubles on this side, whatever a wire has: sums over an answer lose nothing.
FloatArray = NDArray[np.float64]


Reason = Literal["success", "interrupted", "errored"]
"""Why a session is ended."""


# They are errors of the runner, so that one which nobody catches is still a sentence and no traceback.
class Lost(ServiceError):
    """An answer was lost: the request may have been carried out, or not."""


class ResultGone(ServiceError):
    """The request was accepted, and the service no longer has its result; `applied` where it says that it did it."""

    def __init__(self, message: str, applied: bool = False) -> None:
        super().__init__(message)
        self.applied = applied


class SessionGone(ServiceError):
    """The service knows no such session, or it is over: what was not saved is lost."""


class Conflict(ServiceError):
    """The service has had another request under the same name or number."""


@dataclass(frozen=True)
class Datum:
    """A sequence of token ids (N + 1,): for each of the N that are predicted a weight, and whether it is learned.

    Some of the ids stand for `images`.
    """

    ids: Sequence[int]
    weights: FloatArray
    learned: Sequence[bool]
    images: tuple[PlacedImage, ...] = ()


def content_of(images: Sequence[PlacedImage]) -> bytes:
    """Return what identifies images: a digest of each, which its tokens do not tell from another of its size."""
    return b"".join(sha256(each.image.url.encode()).digest() for each in images)


@dataclass(frozen=True)
class Score:
    """`forward` of some sequences, or `forward_backward` of their weighted cross entropy."""

    data: Sequence[Datum]
    learns: bool

    @property
    def kind(self) -> str:
        """The primitive."""
        return "forward_backward" if self.learns else "forward"

    @property
    def num_tokens(self) -> int:
        """The tokens that are computed: the last of a sequence is predicted only."""
        return sum(len(datum.ids) - 1 for datum in self.data)

    @property
    def content(self) -> bytes:
        """All that decides the result, weights included."""
        # Lengths need no place in it: the ids and the weights of a sequence are equally many, but for one.
        return b"".join(
            np.asarray(datum.ids, np.int64).tobytes() + datum.weights.tobytes() + content_of(datum.images)
            for datum in self.data
        )


@dataclass(frozen=True)
class Step:
    """`optim_step` with Adam's numbers."""

    adam: Adam
    kind: ClassVar[str] = "optim_step"
    num_tokens: ClassVar[int] = 0

    @property
    def content(self) -> bytes:
        """All that decides the result."""
        return msgspec.json.encode(self.adam)


@dataclass(frozen=True)
class Save:
    """A checkpoint: `state` to resume from, `sampler` to answer, `export` to be fetched; kept so long, or for good."""

    name: str
    what: Literal["state", "sampler", "export"] = "state"
    ttl_seconds: int | None = None
    kind: ClassVar[str] = "save"
    num_tokens: ClassVar[int] = 0

    @property
    def content(self) -> bytes:
        """All that decides the result."""
        return f"{self.what} {self.name}".encode()


Operation = Score | Step | Save


def digest(operation: Operation) -> str:
    """Return what identifies an operation: its kind, and the sha256 of its content."""
    return sha256(operation.kind.encode() + operation.content).hexdigest()


class Answer(msgspec.Struct, frozen=True):
    """What came of an operation: log-probabilities of the learned tokens as doubles, numbers by name, a path."""

    # Bytes are base64 in JSON: a tenth of a list of numbers to write, and the same to the last bit.
    logps: bytes = b""
    values: dict[str, float] = {}
    path: str = ""

    @property
    def array(self) -> FloatArray:
        """The log-probabilities, shape (tokens,)."""
        return np.frombuffer(self.logps, np.float64)


class Handle(msgspec.Struct, frozen=True):
    """A session at the service, and the model in it that learns."""

    session: str
    model: str


@dataclass(frozen=True)
class Start:
    """What a session begins with: a base model, LoRA's settings, and a saved state with or without its optimizer."""

    base_model: str
    lora: Mapping[str, object]
    seed: int
    state: str = ""
    # Without it Adam's moments begin at zero, as for a run of its own that starts from another one's result.
    optimizer: bool = True
    counted: int = 0
    """The optimizer steps of earlier runs behind it, where a service counts them on."""


class Checkpoints(ABC):
    """What a service keeps of models. Any call may raise the runner's own errors."""

    @abstractmethod
    def find(self, handle: Handle, save: Save) -> str | None:
        """Return the path of a checkpoint by its name, None where the service has none."""

    @abstractmethod
    def of(self, handle: Handle) -> Sequence[str]:
        """Return the paths of a model's checkpoints, of whatever kind."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete a checkpoint, with its session where it cannot be deleted alone; one that is gone is no error."""

    @abstractmethod
    def download(self, path: str, folder: Path) -> None:
        """Put the files of an exported checkpoint into an empty folder."""


class Answering(ABC):
    """What answers prompts at a service, within a session. Any call may raise `SessionGone` or the runner's errors."""

    anywhere: ClassVar[bool] = True
    """Whether any weights answer in any session; else only those that the session's model has, or has had."""

    @abstractmethod
    def sampler(self, session: str, path: str, base_model: str) -> str:
        """Return the id of something that answers: a checkpoint's weights, else a base model.

        Where a session answers for its own model alone, that has to be in the state of `path`, or be untrained.
        """

    def logps(self, sampler: str, ids: Sequence[int]) -> Sequence[float]:
        """Return the log-probability of each token of a text but the first.

        Raises `ServiceError` where a session answers for its own model alone: there `forward` has the same numbers.
        """
        raise ServiceError(f"{sampler}: is not asked how likely a text is.")

    @abstractmethod
    def sample(self, sampler: str, prompt: Sequence[int], sampling: Sampling, ends: Sequence[int]) -> Sequence[Sampled]:
        """Return answers to a prompt, some of whose ids may stand for images; `ends` are the ids that end one."""


class Service(ABC):
    """A service as the driver asks it. Any call may raise `Lost`, `SessionGone` or the runner's own errors."""

    endpoint: str
    """Where it is."""
    checkpoints: Checkpoints
    """What it keeps."""
    answering: Answering
    """What answers there."""
    numbered: ClassVar[bool] = True
    """Whether requests carry a number of ours, by which a service could deduplicate them."""
    ordered: ClassVar[bool] = False
    """Whether a model's requests are carried out in the order in which they were taken, so that none need wait."""
    counts_steps: ClassVar[bool] = False
    """Whether the answer of an optimizer step has `step_count`, the steps behind the weights."""

    def label(self, start: Start) -> str:
        """Return the label by which a session is found whose opening was never answered."""
        return token_hex(8)

    @abstractmethod
    def open(self, start: Start, labels: Mapping[str, str], began: Callable[[str], None]) -> Handle:
        """Open a session with a model, so that it can be found again by `labels`.

        `began` is called with its id as soon as that is known: a model may take minutes to be ready.
        """

    @abstractmethod
    def open_for_answers(self, labels: Mapping[str, str], path: str = "", base_model: str = "") -> str:
        """Open a session in which nothing learns, for weights to be asked, and return its id."""

    @abstractmethod
    def find(self, labels: Mapping[str, str]) -> Sequence[str]:
        """Return the sessions with these labels that are not over."""

    @abstractmethod
    def alive(self, session: str) -> bool:
        """Tell a session that its driver lives; return whether it is not over."""

    @abstractmethod
    def close(self, session: str, reason: Reason) -> None:
        """End a session: what is not saved is gone. One that is over already is no error."""

    # Never two at a time, and never by a client that sends again on its own.
    @abstractmethod
    def post(self, handle: Handle, operation: Operation, number: int) -> str:
        """Send an operation, once, under its number in the session; return the request's id.

        Raises `Lost`, `Conflict` or `SessionGone`.
        """

    @abstractmethod
    def result(self, request: str, operation: Operation) -> Answer:
        """Wait for what came of a request. Raises `ResultGone` or `SessionGone`."""

    @abstractmethod
    def disconnect(self) -> None:
        """Close the connections; the next request opens others."""

    @abstractmethod
    def sessions(self) -> Sequence[RemoteJob]:
        """Return all sessions that the service shows, newest first."""
