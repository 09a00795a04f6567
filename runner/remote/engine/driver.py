"""Each operation carried out once, as far as a service allows, and what is known after a lost answer or a kill.

The loop is deterministic, so that after a kill it is run again from the last checkpoint: operations that the ledger
has an answer for are answered from there (replay), the one that is in doubt is settled, and the next is sent. How it
is settled depends on the operation and on what the service was seen to do:

    forward              sent again: it changes nothing, and costs its price
    save                 looked for by its name, and sent again where it is not there
    any, deduplicated    sent again under the same number, which the service answers as the first time
    optim_step           a probe: the last rows' log-probabilities have moved, or they have not
    forward_backward     nobody can tell: a new session from the last checkpoint (`InDoubt`)

One request is under way at a time.
"""

import time

import numpy as np

from runner.errors import RunnerError, ServiceError
from runner.remote.engine.ledger import Accepted, Answered, Entry, Ledger
from runner.remote.engine.service import (
    Answer,
    Conflict,
    Handle,
    Lost,
    Operation,
    ResultGone,
    Save,
    Score,
    Service,
    SessionGone,
    Step,
    digest,
)

MOST_LOST = 6
"""How often an operation is sent whose answer is lost each time, before the runner gives up."""
CLEAR = 10.0
"""A movement is a step's, and not the engine's noise, where it is so many times as large as the noise."""


class InDoubt(ServiceError):
    """What the session's model has been through is not known: a new one has to begin at the last checkpoint."""


class Driver:
    """Carries out the operations of one run in its session."""

    def __init__(self, service: Service, ledger: Ledger, pause: float = 0.5) -> None:
        self.service, self.ledger, self.pause = service, ledger, pause
        self._cursor = 0  # how many of the ledger's entries the loop has come to
        self._last: tuple[Score, Answer] | None = None

    @property
    def handle(self) -> Handle:
        """The session that is open."""
        assert self.ledger.opened is not None
        return self.ledger.opened.handle

    @property
    def replays(self) -> bool:
        """Whether the ledger has operations that the loop has not come to yet."""
        return self._cursor < len(self.ledger.entries)

    def rewind(self) -> None:
        """Begin again behind the last checkpoint."""
        self._cursor, self._last = 0, None

    def perform(self, operation: Operation, step: int) -> Answer:
        """Carry out the next operation after `step` optimizer steps; one that the ledger has is not sent again.

        Raises `InDoubt` where nobody can tell whether it was carried out.
        """
        try:
            answer = self._performed(operation, step)
        except SessionGone as gone:
            raise InDoubt(str(gone)) from None
        self._cursor += 1
        if isinstance(operation, Score):
            self._last = operation, answer
        return answer

    def _performed(self, operation: Operation, step: int) -> Answer:
        if not self.replays:
            entry = self.ledger.sent(digest(operation), operation.kind, step, operation.num_tokens, kept=True)
            return self._settled(entry, operation, sent_before=False)
        entry = self.ledger.entries[self._cursor]
        # Another version of the loop, or other rows: its answers would be those of other questions.
        if entry.sent.digest != digest(operation):
            raise InDoubt("the requests noted for this session are not those that follow from the last checkpoint")
        return entry.answer or self._settled(entry, operation, sent_before=True)

    def ask(self, operation: Score | Save, step: int) -> Answer:
        """Carry out an operation that may be repeated at its price, and that no replay reaches."""
        entry = self.ledger.sent(digest(operation), operation.kind, step, operation.num_tokens, kept=False)
        return self._settled(entry, operation, sent_before=False)

    def _settled(self, entry: Entry, operation: Operation, sent_before: bool) -> Answer:
        """Return what came of an operation, sent if it has to be."""
        gone = False
        for attempt in range(MOST_LOST):
            # With the id of a request there is nothing to look for: its result is there, or it is gone.
            if sent_before and not entry.request:
                found = self._looked_for(operation, gone)
                if found is not None:
                    return self._noted(entry, found)
            if attempt:  # linear and short: a service that cannot be reached is waited for in http.py
                time.sleep(self.pause * attempt)
            try:
                if not entry.request:
                    sent_before = True  # from here on nobody knows, until it is answered
                    request = self.service.post(self.handle, operation, entry.sent.number)
                    self.ledger.add(Accepted(entry.sent.number, request))
                return self._noted(entry, self.service.result(entry.request, operation))
            except Lost:
                continue
            except Conflict as conflict:
                if isinstance(operation, Save):  # of that name: it was made, and only its answer was lost
                    continue
                raise RunnerError(
                    f"session {self.handle.session}: {conflict}; another driver works on it; stop that one, and give "
                    "the same command again."
                ) from None
            except ResultGone:
                entry.request, gone = "", True
                if isinstance(operation, Score) and not operation.learns:
                    # Under a number of its own: the old one would lead to the same lost result.
                    return self._noted(entry, self.ask(operation, entry.sent.step))
        raise ServiceError(
            f"{operation.kind}: the answer was lost {MOST_LOST} times; {self.service.endpoint} fails or cannot be "
            "reached; the same command resumes."
        )

    def _noted(self, entry: Entry, answer: Answer) -> Answer:
        if entry.sent.kept:
            self.ledger.add(Answered(entry.sent.number, answer))
        return answer

    def _looked_for(self, operation: Operation, gone: bool) -> Answer | None:
        """Return the answer of an operation that is known to be carried out; None where it can be sent again.

        Raises `InDoubt` where neither is known.
        """
        assert self.ledger.opened is not None
        if isinstance(operation, Save):
            # By its name, as no service deduplicates saves (SkyRL does not; a repeated one is a conflict).
            path = self.service.checkpoints.find(self.handle, operation)
            return None if path is None else Answer(path=path)
        if isinstance(operation, Score) and not operation.learns:
            return None
        if self.ledger.opened.dedupes and not gone:
            return None
        # Only the weights can tell, and only of a step: a gradient that waits to be applied shows nowhere.
        if isinstance(operation, Step):
            return Answer() if self._moved() else None
        raise InDoubt("the answer of forward_backward was lost, and nobody can tell whether its gradient was added")

    def _moved(self) -> bool:
        """Say whether the weights have moved since the last rows were scored. Raises `InDoubt` where noise hides it."""
        assert self.ledger.opened is not None
        assert self._last is not None
        # The rows of this very step: they move the most, and their values before it are known for nothing.
        score, before = self._last
        now = self.ask(Score(score.data, learns=False), self.ledger.opened.step)
        apart, noise = float(np.abs(now.array - before.array).max(initial=0.0)), self.ledger.opened.noise
        # The learning rate is above zero at every step, so that equal numbers prove that there was none.
        if apart > CLEAR * noise:
            return True
        if noise == 0:
            return False
        raise InDoubt(f"the answer of optim_step was lost, and {apart:.2g} nats are no more than the engine's noise")
