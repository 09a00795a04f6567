"""A job followed to its end: its state, what the service says of it, and its metrics, as they come.

All of it can be heard again after a stop: the journal keeps one of each. Nothing here stops or changes a job.
"""

import random
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from runner.cost import duration
from runner.errors import EndedError
from runner.graders import Json
from runner.hosted import faults, methods, metrics
from runner.hosted.connection import Connection, Failure, PageOptions
from runner.hosted.jobs import ENDED, FAILED
from runner.hosted.wording import line, redact
from runner.record.events import Event, Metrics, Note, Progress, Said, State, Wait

if TYPE_CHECKING:
    from typing import Unpack

    from openai.pagination import SyncCursorPage
    from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
    from openai.types.fine_tuning.fine_tuning_job import Error
    from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

ORDER = ("created", "pending", "validating_files", "queued", "running", "succeeded")
"""The states of a job in the order in which it goes through them."""
PAGE = 100
"""Events in one answer of the service."""
# Jobs can be paused and resumed, though the SDK's type of a state has no word for it.
ASIDE = FAILED | {"pausing", "paused", "resuming"}
"""States that may come at any time."""


class Followed:
    """A job as it was last seen."""

    def __init__(self, service: Connection, job: str, method: str) -> None:
        self.service, self.job, self.method = service, job, method
        self.state = ""
        # Of the monotonic clock; 0.0 where it has not happened.
        self._changed = self._lost_since = 0.0
        self._cursor = ""
        # Services differ in which end of the list they begin with; it is seen in the answers.
        self._newest_first = False
        # Events so far: a page that is not full yet has to be asked for again.
        self._heard = 0
        self._seen: set[str] = set()  # of the last answer: the journal knows what came before
        self._figures: dict[str, float] = {}
        self.step = self._total = 0

    def to_end(self) -> Generator[Event, None, "FineTuningJob"]:
        """Follow until the job has ended and return it as it is then."""
        while True:
            job = yield from self._look()
            if job is not None:
                yield from self._note_state(str(job.status))
                yield from self._read_events()
                # The events are heard once more after the end: the last ones come with it.
                if job.status in ENDED:
                    return job
            yield self._progress()
            yield Wait(self._interval())

    def _look(self) -> Generator[Event, None, "FineTuningJob | None"]:
        """Return the job, or None while the service does not show it."""

        def retrieve() -> "FineTuningJob":
            return self.service.openai.fine_tuning.jobs.retrieve(self.job)

        try:
            # Sent once at first, as a missing job is no fault here: a service may not show a new one for a moment.
            job = yield from self.service.send(retrieve)
        except Failure as failure:
            if failure.fault.kind == "missing":
                yield from self._missing(failure.fault)
                return None
            job = yield from self.service.ask(f"looking at {self.job}", retrieve)
        self._lost_since = 0.0
        return job

    def _missing(self, fault: faults.Fault) -> Generator[Event, None, None]:
        now = time.monotonic()
        if not self._lost_since:
            self._lost_since = now
            yield Note(f"the service does not show {self.job} ({fault.text}): still looking")
        elif now - self._lost_since > self.service.polling.patience:
            raise EndedError(
                f"{self.job}: the service has not shown this job for {duration(now - self._lost_since)} "
                f"({fault.text}); the same command looks again; if it was deleted, again=true creates a new one."
            )

    def _note_state(self, state: str) -> Generator[Event, None, None]:
        if state == self.state:
            return
        before, self.state, self._changed = self.state, state, time.monotonic()
        # A service may add states; a run that stopped for one would leave a job that is paid for.
        if state not in ORDER and state not in ASIDE:
            yield Note(f"{self.job} is in a state that is not known here, {state!r}: continuing")
        elif before in ORDER and state in ORDER and ORDER.index(state) < ORDER.index(before):
            yield Note(f"{self.job} went back from {before} to {state}: continuing")
        elif state == "paused":
            yield Note(f"{self.job} is paused{self._why}: python -m runner.jobs resume {self.job} resumes it")
        yield State("job", state)

    @property
    def _why(self) -> str:
        """Who may have paused the job, where the service does so by itself."""
        by_hour = self.method in methods.names() and methods.load(self.method).paid_by_hour
        return ", by somebody or by the service at its limit of cost (once resumed there is none)" if by_hour else ""

    def _read_events(self) -> Generator[Event, None, None]:
        """Yield the service's messages and metrics, in their order in time."""
        events = yield from self._events(whole=self.state in ENDED)
        in_order = reversed(events) if self._newest_first else events
        # sorted is stable: within a second and step, the list's own order stays.
        for event in sorted(in_order, key=_moment):
            at, data = float(event.created_at), _data(event)
            step = metrics.step_of(data)
            if step is not None:
                values = metrics.metrics(data, self.method)
                self.step, self._figures = max(self.step, step), self._figures | values
                self._total = metrics.step_of(data, "total_steps") or self._total
                yield Metrics(step, values, at)
            elif event.message:
                yield Said(str(event.id), redact(str(event.message)), at)

    def _events(self, whole: bool) -> Generator[Event, None, list["FineTuningJobEvent"]]:
        """Return the events not seen yet, whichever end the service's list begins with; `whole` reads all of it."""
        after = PageOptions(after=self._cursor) if self._cursor and not whole else PageOptions()

        def page(**options: "Unpack[PageOptions]") -> "SyncCursorPage[FineTuningJobEvent]":
            return self.service.openai.fine_tuning.jobs.list_events(self.job, **(after | options))

        def known(event: "FineTuningJobEvent") -> bool:
            # The newest first, what follows a known one is known. The oldest first, there may be news on the last
            # page only.
            return event.id in self._seen and self._newest_first and not whole

        found = yield from self.service.collect(f"hearing of {self.job}", page, known, awaited=("missing",))
        fresh = [event for event in found if event.id not in self._seen]
        self._heard += len(fresh)
        # An empty answer forgets nothing.
        self._seen = {event.id for event in found} or self._seen
        # Equal seconds give no order.
        if found and found[0].created_at != found[-1].created_at:
            self._newest_first = found[0].created_at > found[-1].created_at
        if found and not self._newest_first and self._heard >= PAGE:  # continue after the pages that are known
            self._cursor = found[-1].id
        return fresh

    def _progress(self) -> Progress:
        words = f"{self.job} {self.state or 'not seen yet'}"
        if self._changed:
            words += f" for {duration(time.monotonic() - self._changed)}"
        return Progress("follow", self.step, self._total, self._figures, words)

    def _interval(self) -> float:
        """Return the seconds to the next look: up to four times as long for a job that stays in the queue."""
        every = self.service.polling.every
        waiting = self.state in ORDER[:4] or self.state == "paused"
        since = time.monotonic() - self._changed if self._changed else 0.0
        # Queues take hours, and the service counts requests: twice as long after 20 looks' time, four times after
        # 60.
        factor = min(4.0, 1.0 + since / (20 * every)) if waiting else 1.0
        return every * factor * jitter()


def _data(event: "FineTuningJobEvent") -> dict[str, object]:
    return event.data if isinstance(event.data, dict) else {}


def _moment(event: "FineTuningJobEvent") -> tuple[int, int]:
    """Return what events are ordered by: their whole second, and within it the step."""
    return event.created_at, metrics.step_of(_data(event)) or 0


def jitter() -> float:
    """Return a factor around 1, so that many processes do not ask at the same moment."""
    return random.uniform(0.8, 1.2)


def ended(job: "FineTuningJob", by_hour: bool = False) -> None:
    """Raise `EndedError` unless a job has ended with a model: what happened, what it may cost, what to do.

    `by_hour` says that training is paid by the hour.
    """
    if job.status == "succeeded" and job.fine_tuned_model:
        return
    if job.status == "succeeded":
        raise EndedError(
            f"{job.id}: succeeded, but the service names no model; look for it in the Foundry portal "
            "(the job is paid for); again=true creates a new job, which is paid for again."
        )
    billed = "the hours of training so far may be billed" if by_hour else _billed(job.trained_tokens)
    if job.status == "failed":
        why = _reason(job.error)
        raise EndedError(
            f"{job.id}: the job failed: {why}; {billed}; fix what it names, then again=true creates a new job."
        )
    raise EndedError(
        f"{job.id}: the job was {job.status} at the service; {billed}; again=true creates a new job, from the start."
    )


def _billed(trained_tokens: int | None) -> str:
    if trained_tokens is None:
        return "the service does not say how many tokens were trained; those may be billed"
    return f"{trained_tokens:,} trained tokens may be billed" if trained_tokens else "no tokens were trained"


def _reason(error: "Error | None") -> str:
    """Return what a job's error says; it may be absent, empty, or have empty members."""
    parts = [str(part) for part in (getattr(error, "code", None), getattr(error, "message", None)) if part]
    return line(": ".join(parts)) or "the service gives no reason (the Foundry portal may)"


def checkpoints(listed: list["FineTuningJobCheckpoint"]) -> Iterator[dict[str, Json]]:
    """Yield a job's checkpoints: a model reference each (`model.source=hosted:…`), and its step."""
    for each in sorted(listed, key=lambda each: each.step_number):
        yield {"model": f"hosted:{each.fine_tuned_model_checkpoint}", "step": each.step_number}
