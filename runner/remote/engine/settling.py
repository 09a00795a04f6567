"""An operation brought to its answer, whatever became of its request: sent, waited for, looked for, sent again.

How one is settled whose answer was lost depends on it and on what the service was seen to do:

    forward              sent again: it changes nothing, and costs its price
    save                 looked for by its name, and sent again where it is not there
    any, deduplicated    sent again under the same number, which the service answers as the first time
    optim_step           a probe: the last rows' log-probabilities have moved, or they have not
    forward_backward     nobody knows: a new session from the last checkpoint (`InDoubt`)

What the weights say, and the service's count of steps, is in doubt.py.
"""

import time
from collections.abc import Callable
from functools import partial

from runner.errors import ServiceError
from runner.remote.engine.coming import Coming
from runner.remote.engine.doubt import Doubt, InDoubt, Scored, another_driver
from runner.remote.engine.ledger import Accepted, Answered, Entry, Ledger, Opened, Resent
from runner.remote.engine.service import (
    Answer,
    Conflict,
    Lost,
    Operation,
    ResultGone,
    Save,
    Score,
    Service,
    Step,
)

MOST_LOST = 6
"""How often an operation is sent whose answer is lost each time, before the runner gives up."""


class Settling:
    """Brings the operations of one run in its session to their answers."""

    def __init__(self, service: Service, ledger: Ledger, pause: float, ask: Callable[[Score, int], Answer]) -> None:
        self._service, self._ledger, self._pause, self._ask = service, ledger, pause, ask
        self._doubt = Doubt(service, ledger, ask)

    @property
    def last(self) -> Scored | None:
        """The rows that were scored last."""
        return self._doubt.last

    @last.setter
    def last(self, scored: Scored | None) -> None:
        self._doubt.last = scored

    @property
    def _opened(self) -> Opened:
        assert self._ledger.opened is not None
        return self._ledger.opened

    def settle(
        self,
        entry: Entry,
        operation: Operation,
        sent_before: bool,
        coming: Coming | None = None,
        followed: bool = False,
    ) -> Answer:
        """Return what came of an operation, sent if it has to be.

        `coming` is its answer, if that is on its way; `followed` says that others were sent after it.
        """
        gone = False
        for attempt in range(MOST_LOST):
            # With the id of a request there is nothing to look for: its result is there, or it is gone.
            if sent_before and not entry.request:
                found = self._looked_for(operation, gone)
                if found is not None:
                    return self._noted(entry, operation, found)
                self._note_again(entry, operation, gone)
            if attempt:  # linear and short: a service that cannot be reached is waited for in http.py
                time.sleep(self._pause * attempt)
            try:
                if not entry.request:
                    sent_before = True  # from here on nobody knows, until it is answered
                    self.post(entry, operation)
                fetch = coming.answer if coming else partial(self._service.result, entry.request, operation)
                return self._noted(entry, operation, fetch())
            except Lost:
                coming = None
            except ResultGone as lost:
                # They were carried out upon whatever this one did.
                if followed and not _changes_nothing(operation):
                    raise InDoubt(f"{lost}, and others were sent after it") from None
                entry.request, gone, coming = "", True, None
                found = self._in_place_of(entry, operation, lost.applied)
                if found is not None:
                    return self._noted(entry, operation, found)
        raise ServiceError(
            f"{operation.kind}: the answer was lost {MOST_LOST} times; {self._service.endpoint} fails or cannot be "
            "reached; the same command resumes."
        )

    def post(self, entry: Entry, operation: Operation) -> None:
        """Send an operation, and note the id of its request. Raises `Lost` where nobody knows whether it arrived."""
        try:
            request = self._service.post(self._opened.handle, operation, entry.sent.number)
        except Conflict as conflict:
            if isinstance(operation, Save):  # of that name: it was made, and only its answer was lost
                raise Lost(str(conflict)) from None
            raise another_driver(self._opened.handle.session, str(conflict)) from None
        self._ledger.add(Accepted(entry.sent.number, request))

    def _noted(self, entry: Entry, operation: Operation, answer: Answer) -> Answer:
        if isinstance(operation, Step):
            self._doubt.demand_count(entry.sent.step, answer)
        if isinstance(operation, Save) and entry.sent.kept:
            self._doubt.demand_still()
        if entry.sent.kept:
            self._ledger.add(Answered(entry.sent.number, answer))
        if isinstance(operation, Step):
            self._doubt.note_step()
        return answer

    def _note_again(self, entry: Entry, operation: Operation, gone: bool) -> None:
        """Note that a step is sent again without a number that would make it the same one."""
        if isinstance(operation, Step) and (gone or not self._opened.dedupes):
            self._ledger.add(Resent(entry.sent.number))

    def _looked_for(self, operation: Operation, gone: bool) -> Answer | None:
        """Return the answer of an operation that is known to be carried out; None where it can be sent again.

        Raises `InDoubt` where neither is known.
        """
        if isinstance(operation, Save):
            # By its name, as no service deduplicates saves (SkyRL does not; a repeated one is a conflict).
            path = self._service.checkpoints.find(self._opened.handle, operation)
            return None if path is None else Answer(path=path)
        if _changes_nothing(operation):
            return None
        if self._opened.dedupes and not gone:
            return None
        # Only the weights show it, and only of a step: a gradient that waits to be applied shows nowhere.
        if isinstance(operation, Step):
            return Answer() if self._doubt.moved() else None
        raise InDoubt("the answer of forward_backward was lost, and nobody can tell whether its gradient was added")

    def _in_place_of(self, entry: Entry, operation: Operation, applied: bool) -> Answer | None:
        """Return what can be had in place of a result that is gone, None where nothing can."""
        # A gradient does not move the weights: a forward pass has the same log-probabilities, under a number of its
        # own, as the old one would lead to the same lost result.
        if isinstance(operation, Score) and (applied or not operation.learns):
            return self._ask(Score(operation.data, learns=False), entry.sent.step)
        return Answer() if applied and isinstance(operation, Step) else None


def _changes_nothing(operation: Operation) -> bool:
    return isinstance(operation, Score) and not operation.learns
