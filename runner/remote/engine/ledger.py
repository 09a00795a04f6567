"""The requests of a run to a remote engine, on disk: each is noted before it is sent, so that a kill loses none.

A file of JSON lines next to the journal, which has no place for them: the engine's primitives are called by the loop,
and their results are arrays. Each record is synced before the run continues. A line torn by a crash is cut off.
"""

from collections import Counter
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

import msgspec

from runner.record import files
from runner.remote.engine.service import Answer, Handle
from runner.training.engine import Sampled as SampledAnswer
from runner.training.evaluated import EvaluationState, Saved


class Opening(msgspec.Struct, frozen=True, tag=True):
    """A session is about to be opened, under this label."""

    label: str


class Named(msgspec.Struct, frozen=True, tag=True):
    """The session that is being opened has this id; its model is not ready yet."""

    session: str


class Opened(msgspec.Struct, frozen=True, tag=True):
    """A session is open; its model begins after `step` optimizer steps."""

    handle: Handle
    state: str
    """The path of what its model was made of; empty where that is fresh."""
    step: int
    next_number: int
    dedupes: bool
    """Whether the service answered the same number twice with the same request: measured, never assumed."""
    noise: float
    """The largest difference, in nats, between two forward passes over the same row."""
    time: float
    counted: int = 0
    """The optimizer steps of earlier runs behind the weights."""


class Sent(msgspec.Struct, frozen=True, tag=True):
    """An operation is about to be sent. Those that are not `kept` may be asked at any time again, at their price."""

    number: int
    kind: str
    step: int
    digest: str
    num_tokens: int
    kept: bool


class Resent(msgspec.Struct, frozen=True, tag=True):
    """An optimizer step is about to be sent again, as its first request did not arrive; it may still do so."""

    number: int


class Accepted(msgspec.Struct, frozen=True, tag=True):
    """The service has taken an operation, under this id."""

    number: int
    request: str


class Answered(msgspec.Struct, frozen=True, tag=True):
    """What came of an operation that is kept."""

    number: int
    answer: Answer


class Checkpoint(msgspec.Struct, frozen=True, tag=True):
    """All is saved after so many optimizer steps: what came before need never be replayed."""

    saved: Saved
    path: str


class Best(msgspec.Struct, frozen=True, tag=True):
    """The weights after so many optimizer steps are the best so far."""

    step: int
    path: str


class Drawn(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it was sampled."""

    ids: list[int]
    logps: list[float | None]
    """None where the service reports none, as for an end that it leaves out."""
    ended: bool

    @classmethod
    def of(cls, answer: SampledAnswer) -> "Drawn":
        """Return an answer as it is kept."""
        # nan is no JSON.
        return cls(list(answer.ids), [None if isnan(each) else each for each in answer.logps], answer.ended)

    def answer(self) -> SampledAnswer:
        """Return the answer."""
        return SampledAnswer(self.ids, [nan if each is None else each for each in self.logps], self.ended)


class Sampled(msgspec.Struct, frozen=True, tag=True):
    """Answers were sampled: so many tokens read, so many written."""

    prefill: int
    sample: int
    question: str = ""
    """What was asked of which weights, where the answers are to be had again."""
    answers: tuple[Drawn, ...] = ()


class Closed(msgspec.Struct, frozen=True, tag=True):
    """A session is over."""

    session: str


Line = Opening | Named | Opened | Sent | Resent | Accepted | Answered | Checkpoint | Best | Sampled | Closed


@dataclass
class Entry:
    """An operation since the last checkpoint, as far as it is known what came of it."""

    sent: Sent
    request: str = ""
    answer: Answer | None = None


class Ledger:
    """The ledger of a run, and the state that follows from its lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.opening: str | None = None
        self.named: str | None = None
        """The session that is being opened, where its id is known."""
        self.opened: Opened | None = None
        self.entries: list[Entry] = []
        self.checkpoint: Checkpoint | None = None
        self.best: dict[int, str] = {}
        self.paths: list[str] = []
        self.used: Counter[str] = Counter()
        self.drawn: dict[str, tuple[Drawn, ...]] = {}
        """Answers to what was asked since the last checkpoint, by question."""
        self.next_number = 1
        self.at = ""
        """The path of the state that the session's model was in when the entries began."""
        self.resent = False
        """Whether a step of this session was sent twice."""
        self._by_number: dict[int, Entry] = {}
        for line in read(path):
            self._apply(line)
        files.cut_torn_line(path)

    def add(self, line: Line) -> None:
        """Write a line, wait until it is on the disk, and count it in."""
        # 1 to 5 ms on a disk, next to a round trip of 50 or more.
        files.append(self._path, msgspec.json.encode(line))
        self._apply(line)

    def sent(self, operation_digest: str, kind: str, step: int, num_tokens: int, kept: bool) -> Entry:
        """Note an operation that is about to be sent, under the next number."""
        self.add(Sent(self.next_number, kind, step, operation_digest, num_tokens, kept))
        return self._by_number[self.next_number - 1]

    @property
    def session(self) -> str | None:
        """The session that is open, or is being opened."""
        return self.opened.handle.session if self.opened is not None else self.named

    def _apply(self, line: Line) -> None:
        match line:
            case Opening(label):
                self.opening, self.named = label, None
            case Named(session):
                self.named = session
            case Opened():
                self.opening, self.named, self.opened, self.next_number = None, None, line, line.next_number
                # A new model: what an earlier one was asked is not replayed.
                self.entries, self._by_number, self.at, self.resent = [], {}, line.state, False
            case Sent(number=number, kind=kind, num_tokens=num_tokens, kept=kept):
                self._by_number[number] = entry = Entry(line)
                self.next_number = number + 1  # never the same twice, whatever became of it
                # Counted when it is sent: what was sent and lost may have been paid for.
                self.used[kind] += num_tokens
                self.entries += [entry] if kept else []
            case Resent():
                self.resent = True
            case Accepted(number, request):
                self._by_number[number].request = request
            case Answered(number, answer):
                self._by_number[number].answer = answer
            case Checkpoint(path=path):
                self.checkpoint, self.entries, self.at = line, [], path
                # What was sampled before is on the disk as a whole by now (runner/rollouts/sampled.py).
                self.drawn = {}
                self.paths.append(path)
            case Best(step, path):
                self.best[step] = path
                self.paths.append(path)
            case Sampled(prefill, sample, question, answers):
                self.used["prefill"] += prefill
                self.used["sample"] += sample
                if question:
                    self.drawn[question] = answers
            case Closed(session):
                if self.opened is not None and self.opened.handle.session == session:
                    self.opened, self.entries = None, []
                if self.named == session:
                    self.opening = self.named = None


def read(path: Path) -> list[Line]:
    """Return the whole lines of a ledger; none where there is no file."""
    decoder = msgspec.json.Decoder(Line)
    # Small: it holds no more than log-probabilities of the rows since the last checkpoints.
    return [decoder.decode(line) for line in files.whole_lines(path).splitlines()]


def start_of(ledger: Ledger) -> Saved:
    """Return what the loop starts from: the last checkpoint, else the beginning."""
    return ledger.checkpoint.saved if ledger.checkpoint else Saved(0, EvaluationState())
