"""A run's session at a service: taken up or opened when a step needs it, ended when the run stops, however it stops."""

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from runner.errors import RunnerError, ServiceError
from runner.models.chat.tokenizer import TokenRow
from runner.record import layout
from runner.record.events import Created, Event, Note, Removed
from runner.remote.engine import opening
from runner.remote.engine.doubt import InDoubt
from runner.remote.engine.driver import Driver
from runner.remote.engine.heartbeat import Heartbeat
from runner.remote.engine.ledger import Ledger, start_of
from runner.remote.engine.remote_engine import datums
from runner.remote.engine.service import Conflict, Datum, Lost, Reason, SessionGone
from runner.remote.money.rates import trained_again
from runner.remote.target import Place, Target
from runner.training.examples import num_learned

if TYPE_CHECKING:
    from runner.plan import Run

Done = TypeVar("Done")
Work = Generator[Event, None, Done]
"""Something done within a session, and what comes of it."""
PLAN = "runner_plan_id"
"""The label of a session with the plan that it works on."""
MOST_SESSIONS = 3
"""How many sessions are opened for one piece of work, where each is over before it is done."""
SESSION, CHECKPOINT = "session", "checkpoint"
"""What a run creates at a service, as the journal has it."""


class Session:
    """The session of a run, and what the journal is to hear of it."""

    def __init__(self, run: "Run", target: Target) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        self.service = target.service()
        self.driver = Driver(self.service, Ledger(run.folder / layout.LEDGER))
        self._target, self._labels, self._reported = target, {PLAN: run.plan.id}, 0
        self._heartbeat: Heartbeat | None = None

    def begin(self, rows: Sequence[TokenRow], at: Place | None = None) -> Generator[Event, None, None]:
        """Take up the session, or open one: at the last checkpoint, or where its model is in a given state.

        `rows` are those of training, whose first one shows what the service does with a request that is sent twice.
        """
        driver, ledger = self.driver, self.driver.ledger
        before, again = ledger.opened, _steps_since(ledger)  # `attached` forgets both where it is gone
        place = self._last_checkpoint if at is None else at
        start = self._target.start(place.state)
        if opening.attached(driver) and (at is None or (ledger.at == start.state and not ledger.entries)):
            driver.rewind()  # what came since the last checkpoint is replayed from the ledger
        else:
            if ledger.opened is None and before is not None and again and at is None:
                yield Note(f"session {before.handle.session} is over: {trained_again(again)}")
            yield from self.end("success")  # one whose model is another than that which is wanted
            opening.open_session(driver, start, place.step, _probe(rows), self._labels)
        session = driver.handle.session
        yield Created(SESSION, session, {"model": driver.handle.model, "endpoint": self.service.endpoint})
        yield from self.news()
        if self._heartbeat is None or self._heartbeat.session != session:
            self._heartbeat = Heartbeat(self.service, session)

    def at(self, rows: Sequence[TokenRow], place: Place, work: Callable[[], Work[Done]]) -> Work[Done]:
        """Do some work in a session whose model is in a state; in another session where that one ends meanwhile."""
        for _ in range(MOST_SESSIONS):
            yield from self.begin(rows, place)
            try:
                return (yield from work())
            except (InDoubt, SessionGone) as gone:
                yield from self.start_over(str(gone))
        raise ServiceError(f"{self.service.endpoint}: sessions end at once; the same command resumes.")

    def closing_on_error(self, work: Work[Done]) -> Work[Done]:
        """Do some work, and end the session where it is stopped or fails: what is saved is kept."""
        try:
            return (yield from work)
        except GeneratorExit:  # nobody listens any more, so that nothing can be yielded
            self.close("errored")
            raise
        # Whatever it is: a session that nobody drives may cost, and holds a place.
        except BaseException:
            yield from self.end("errored")
            self.service.disconnect()
            raise

    def news(self) -> Generator[Event, None, None]:
        """Yield the checkpoints that were made since this was asked last."""
        paths = self.driver.ledger.paths
        fresh, self._reported = paths[self._reported :], len(paths)
        # Reported again by a process that resumes: the journal takes what it has already as no news.
        for path in fresh:
            yield Created(CHECKPOINT, path, {})

    def start_over(self, reason: str) -> Generator[Event, None, None]:
        """End a session of which it is not known what its model has been through."""
        again = _steps_since(self.driver.ledger)
        yield Note(f"{reason}: a new session begins at the last checkpoint; {trained_again(again)}")
        yield from self.end("errored")

    def end(self, reason: Reason) -> Generator[Event, None, None]:
        """End the session, if one is open."""
        closed = self.close(reason)
        if closed is not None:
            yield Removed(SESSION, closed)

    def close(self, reason: Reason) -> str | None:
        """End the session and return its id; None where there is none, or the service cannot be reached."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        # Not raised: the message is what ended the run, and not that its session could not be.
        # A service that cannot be reached ends it by itself, once no heartbeat has come for a while.
        with suppress(RunnerError, Lost, SessionGone, Conflict):
            return opening.close(self.driver, reason)
        return None

    @property
    def _last_checkpoint(self) -> Place:
        checkpoint = self.driver.ledger.checkpoint
        return Place(checkpoint.path if checkpoint else "", start_of(self.driver.ledger).step)


def _probe(rows: Sequence[TokenRow]) -> list[Datum]:
    first = rows[0]
    return list(datums([first], np.zeros(sum(num_learned(first)))))


def _steps_since(ledger: Ledger) -> int:
    """Return the gradients since the last checkpoint, which are lost with the session."""
    return len({entry.sent.step for entry in ledger.entries if entry.sent.kind == "forward_backward"})
