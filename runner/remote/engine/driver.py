"""Each operation carried out once, as far as a service allows, and what is known after a lost answer or a kill.

The loop is deterministic, so that after a kill it is run again from the last checkpoint: operations that the ledger
has an answer for are answered from there (replay), the one that is in doubt is settled, and the next is sent. How it
is settled depends on the operation and on what the service was seen to do:

    forward              sent again: it changes nothing, and costs its price
    save                 looked for by its name, and sent again where it is not there
    any, deduplicated    sent again under the same number, which the service answers as the first time
    optim_step           a probe: the last rows' log-probabilities have moved, or they have not
    forward_backward     nobody can tell: a new session from the last checkpoint (`InDoubt`)

One request is under way at a time. What the weights say, and the service's count of steps, is in doubt.py.
"""

import time

from runner.errors import ServiceError
from runner.remote.engine.doubt import Doubt, InDoubt, another_driver
from runner.remote.engine.ledger import Accepted, Answered, Entry, Ledger, Resent
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


class Driver:
    """Carries out the operations of one run in its session."""

    def __init__(self, service: Service, ledger: Ledger, pause: float = 0.5) -> None:
        self.service, self.ledger, self.pause = service, ledger, pause
        self._cursor = 0  # how many of the ledger's entries the loop has come to
        self._doubt = Doubt(service, ledger, self.ask)

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
        self._cursor, self._doubt.last = 0, None

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
            self._doubt.last = operation, answer
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
                    return self._noted(entry, operation, found)
                self._note_again(entry, operation, gone)
            if attempt:  # linear and short: a service that cannot be reached is waited for in http.py
                time.sleep(self.pause * attempt)
            try:
                if not entry.request:
                    sent_before = True  # from here on nobody knows, until it is answered
                    request = self.service.post(self.handle, operation, entry.sent.number)
                    self.ledger.add(Accepted(entry.sent.number, request))
                return self._noted(entry, operation, self.service.result(entry.request, operation))
            except Lost:
                continue
            except Conflict as conflict:
                if isinstance(operation, Save):  # of that name: it was made, and only its answer was lost
                    continue
                raise another_driver(self.handle.session, str(conflict)) from None
            except ResultGone as lost:
                entry.request, gone = "", True
                found = self._in_place_of(entry, operation, lost.applied)
                if found is not None:
                    return self._noted(entry, operation, found)
        raise ServiceError(
            f"{operation.kind}: the answer was lost {MOST_LOST} times; {self.service.endpoint} fails or cannot be "
            "reached; the same command resumes."
        )

    def _noted(self, entry: Entry, operation: Operation, answer: Answer) -> Answer:
        if isinstance(operation, Step):
            self._doubt.demand_count(entry.sent.step, answer)
        if isinstance(operation, Save) and entry.sent.kept:
            self._doubt.demand_still()
        if entry.sent.kept:
            self.ledger.add(Answered(entry.sent.number, answer))
        if isinstance(operation, Step):
            self._doubt.note_step()
        return answer

    def _note_again(self, entry: Entry, operation: Operation, gone: bool) -> None:
        """Note that a step is sent again without a number that would make it the same one."""
        assert self.ledger.opened is not None
        if isinstance(operation, Step) and (gone or not self.ledger.opened.dedupes):
            self.ledger.add(Resent(entry.sent.number))

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
            return Answer() if self._doubt.moved() else None
        raise InDoubt("the answer of forward_backward was lost, and nobody can tell whether its gradient was added")

    def _in_place_of(self, entry: Entry, operation: Operation, applied: bool) -> Answer | None:
        """Return what can be had in place of a result that is gone, None where nothing can."""
        # A gradient does not move the weights: a forward pass has the same log-probabilities, under a number of its
        # own, as the old one would lead to the same lost result.
        if isinstance(operation, Score) and (applied or not operation.learns):
            return self.ask(Score(operation.data, learns=False), entry.sent.step)
        return Answer() if applied and isinstance(operation, Step) else None
