"""Each operation carried out once, as far as a service allows, and what is known after a lost answer or a kill.

The loop is deterministic, so that after a kill it is run again from the last checkpoint: operations that the ledger
has an answer for are answered from there (replay), those that are in doubt are settled (settling.py), and the next is
sent.

One request is sent at a time, and the next one once the service has taken it: at most one is in doubt whose id is not
known. Where a service carries requests out in the order in which it takes them, their answers are fetched meanwhile.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from runner.remote.engine.coming import Coming, UnderWay
from runner.remote.engine.doubt import InDoubt
from runner.remote.engine.ledger import Entry, Ledger
from runner.remote.engine.service import Answer, Handle, Lost, Operation, Save, Score, Service, SessionGone, digest
from runner.remote.engine.settling import Settling

GIVEN_UP_SECONDS = 1.0
"""The longest that an answer is waited for whose session is over."""


class Driver:
    """Carries out the operations of one run in its session."""

    def __init__(self, service: Service, ledger: Ledger, pause: float = 0.5) -> None:
        self.service, self.ledger, self.pause = service, ledger, pause
        self._cursor = 0  # how many of the ledger's entries the loop has come to
        self._under_way: list[UnderWay] = []  # started, in the order of their numbers, and not answered yet
        self._settling = Settling(service, ledger, pause, self.ask)

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
        """Begin again behind the last checkpoint; answers that are still on their way are given up."""
        for each in self._under_way:
            # Of a session that is over they come at once; so none asks on a connection that is closed below it.
            if each.coming is not None:
                each.coming.wait(GIVEN_UP_SECONDS)
        self._cursor, self._settling.last, self._under_way = 0, None, []

    def perform(self, operation: Operation, step: int) -> Answer:
        """Carry out the next operation after `step` optimizer steps; one that the ledger has is not sent again.

        Raises `InDoubt` where nobody can tell whether it was carried out.
        """
        return self.start(operation, step)()

    def start(
        self, operation: Operation, step: int, then: Callable[[Answer], None] = lambda answer: None
    ) -> Callable[[], Answer]:
        """Carry out the next operation like `perform`, and return what waits for its answer.

        Where the service keeps the order, the next one can be started before. `then` is called with the answer once
        it is noted; an error that it raises comes out of whatever waits first.
        """
        try:
            return self._started(operation, step, then)
        except SessionGone as gone:
            raise InDoubt(str(gone)) from None

    def collect(self) -> None:
        """Wait for the answers of all that was started. Raises `InDoubt` like `perform`."""
        try:
            while self._under_way:
                each = self._under_way.pop(0)
                settle = partial(self._settling.settle, each.entry, each.operation, sent_before=True)
                answer = settle(coming=each.coming, followed=bool(self._under_way))
                self._passed(each.operation, answer, each.then)
        except SessionGone as gone:
            raise InDoubt(str(gone)) from None

    def ask(self, operation: Score | Save, step: int) -> Answer:
        """Carry out an operation that may be repeated at its price, and that no replay reaches."""
        self.collect()
        entry = self.ledger.sent(digest(operation), operation.kind, step, operation.num_tokens, kept=False)
        return self._settling.settle(entry, operation, sent_before=False)

    def _started(self, operation: Operation, step: int, then: Callable[[Answer], None]) -> Callable[[], Answer]:
        if self.replays:
            entry = self.ledger.entries[self._cursor]
            # Another version of the loop, or other rows: its answers would be those of other questions.
            if entry.sent.digest != digest(operation):
                raise InDoubt("the requests noted for this session are not those that follow from the last checkpoint")
            answer = entry.answer or self._settling.settle(entry, operation, sent_before=True)
            self._cursor += 1
            self._passed(operation, answer, then)
            return lambda: answer
        entry = self.ledger.sent(digest(operation), operation.kind, step, operation.num_tokens, kept=True)
        self._cursor += 1
        with suppress(Lost):  # settled below, after what was sent before
            self._settling.post(entry, operation)
        # A step that was sent twice may still move the weights: then each request is looked at before the next.
        waits = not entry.request or not self.service.ordered or self.ledger.resent
        coming = None if waits else Coming(partial(self.service.result, entry.request, operation))
        self._under_way.append(UnderWay(entry, operation, coming, then))
        if waits:
            self.collect()
        return partial(self._answer_of, entry)

    def _answer_of(self, entry: Entry) -> Answer:
        if entry.answer is None:
            self.collect()
        assert entry.answer is not None
        return entry.answer

    def _passed(self, operation: Operation, answer: Answer, then: Callable[[Answer], None]) -> None:
        if isinstance(operation, Score):
            self._settling.last = operation, answer
        then(answer)
