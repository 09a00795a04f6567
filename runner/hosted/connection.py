"""Requests to a hosted service: the SDK's own retries are off, every request is sent politely in turn.

An SDK would repeat a POST that may have been carried out; here only what can be repeated is (`ask`), and what creates
something is sent once (`send`) by a caller that knows how to look (`create`). All are generators: they yield `Wait`
instead of sleeping, so that a signal is heard and one process can follow many jobs.
"""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
from typing import Protocol, TypedDict, TypeVar

from httpx2 import Response
from openai import OpenAI

from runner.cost import duration
from runner.errors import RunnerError
from runner.hosted import faults
from runner.hosted.keys import Polling
from runner.record.events import Event, Note, Wait

Answer = TypeVar("Answer")
Asking = Generator[Event, None, Answer]


class Item(Protocol):
    """What a service lists: files, jobs, events."""

    @property
    def id(self) -> str:
        """What it is called at the service."""


Listed = TypeVar("Listed", bound=Item)
Listed_co = TypeVar("Listed_co", bound=Item, covariant=True)


class Page(Protocol[Listed_co]):
    """One answer of a paged list."""

    @property
    def data(self) -> Sequence[Listed_co]:
        """Its items."""


class PageOptions(TypedDict, total=False):
    """Which page of a list is asked for: so many items, after that of an id."""

    limit: int
    after: str


# The SDKs' own time-out is ten minutes per request, in which no signal is heard
# (https://github.com/openai/openai-python#timeouts).
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
UPLOAD_SECONDS = 600.0  # the largest file that is taken has 512 MiB
LONGEST_WAIT_SECONDS = 60.0
MOST_LOST = 4
"""How often what creates something is sent, after looks that found nothing, before the runner gives up."""


class Failure(Exception):
    """A request that is sent once failed; `fault` says how."""

    def __init__(self, fault: faults.Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


class Connection(ABC):
    """A hosted service that speaks OpenAI's API; a backend says how to connect to it."""

    endpoint: str
    """Where the service is."""
    polling: Polling
    """How it is asked."""
    foreign: tuple[type[Exception], ...] = faults.FOREIGN
    """What its SDKs raise; `classify` says what each means."""

    def __init__(self, endpoint: str, polling: Polling) -> None:
        self.endpoint, self.polling = endpoint, polling
        # When the next request may go, and when the last one went; `_answered` once our token was good.
        self._turn, self._sent = 0.0, 0.0
        self._answered = False

    @property
    @abstractmethod
    def openai(self) -> OpenAI:
        """The OpenAI client, connected and authenticated, without retries of its own."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections and forget credentials; the next request opens new ones."""

    def classify(self, error: Exception) -> faults.Fault:
        """Return what an exception of the SDKs means."""
        return faults.classify(error)

    def error_for(self, fault: faults.Fault, what: str) -> RunnerError:
        """Return the error for the user: what was being done, what came back, what to do."""
        return faults.error_for(fault, what, self.endpoint)

    def ask(self, what: str, request: Callable[[], Answer], awaited: Collection[str] = ()) -> Asking[Answer]:
        """Make a request that may be repeated until it is answered, for as long as `polling.patience`.

        `awaited` are further kinds of faults that may pass. Raises the runner's error for others.
        """
        began, failures = time.monotonic(), 0
        while True:
            try:
                return (yield from self.send(request))
            except Failure as failure:
                fault, waited, failures = failure.fault, time.monotonic() - began, failures + 1
            lapsed = fault.kind in faults.LAPSED and self._answered  # it did let us in: it may again
            passing = fault.kind in faults.PASSING or fault.kind in awaited or lapsed
            if not passing or waited + (fault.retry_after or 0) > self.polling.patience:
                raise self.error_for(fault, what)
            # Not before: most faults of the moment are over after a second or two.
            if failures == 3:
                left = duration(self.polling.patience - waited)
                yield Note(f"{what}: {fault.text}; asking again for up to {left}")
            yield Wait(self.pause(failures, fault))

    def create(
        self,
        what: str,
        request: Callable[[], Answer],
        look: Callable[[], Asking[Answer | None]],
        awaited: Collection[str] = (),
    ) -> Asking[Answer]:
        """Make a request that creates something; where its answer is lost, `look` for it before sending it again.

        What the service turned away is sent again for as long as `polling.patience`, what may have been carried out
        only a few times, each after a look that found nothing. Raises the runner's error for other faults.
        """
        began, failures, lost = time.monotonic(), 0, 0
        while True:
            try:
                return (yield from self.send(request))
            except Failure as failure:
                fault, failures = failure.fault, failures + 1
            if fault.kind in faults.UNCERTAIN:
                # Counted apart: each may have made one that is paid for, so that patience alone is no limit.
                lost += 1
                yield Note(f"{what}: the answer was lost ({fault.text}): looking whether it was carried out")
                found = yield from look()
                if found is not None:
                    return found
            waited = time.monotonic() - began + (fault.retry_after or 0)
            # A lapsed token is no reason to wait here: `send` has renewed it once already.
            over = lost >= MOST_LOST or waited > self.polling.patience
            passing = fault.kind in faults.PASSING or fault.kind in awaited
            if not passing or over:
                raise self.error_for(fault, what)
            yield Wait(self.pause(failures, fault))

    def send(self, request: Callable[[], Answer]) -> Asking[Answer]:
        """Make a request once, when it is its turn; raises `Failure`.

        Only one that the service turned away for its token is made once more, with a new token.
        """
        for renewed in (False, True):
            yield from self._wait_for_turn()
            try:
                answer = request()
            except self.foreign as error:
                fault = self.classify(error)
                if fault.kind not in faults.LAPSED or renewed:
                    # None: the SDK's exception holds the request, and with it the token.
                    raise Failure(fault) from None
                # The next call of `request` finds a new client, which asks for a new token.
                self.close()
            else:
                self._answered = True
                return answer
        raise AssertionError("the second time returns or raises")

    def collect(
        self,
        what: str,
        page: Callable[..., Page[Listed]],
        enough: Callable[[Listed], bool] = lambda item: False,
        awaited: Collection[str] = (),
    ) -> Asking[list[Listed]]:
        """Return the items of a paged list up to the first that is `enough`.

        A service that answers with the same page again cannot make it endless.
        """
        found: dict[str, Listed] = {}
        options = PageOptions(limit=100)
        while True:
            answer = yield from self.ask(what, partial(page, **options), awaited)
            # A list may move on between two pages: items come twice, and are taken once.
            fresh = [each for each in answer.data if each.id not in found]
            found |= {each.id: each for each in fresh}
            if not fresh or not getattr(answer, "has_more", False) or any(map(enough, fresh)):
                return list(found.values())
            options["after"] = answer.data[-1].id

    def pause(self, failures: int, fault: faults.Fault | None = None) -> float:
        """Return the seconds to wait after so many failures: what the service asks for, else doubled and jittered."""
        if fault is not None and fault.retry_after is not None:
            # Never earlier than the service asks for; the jitter keeps processes that were turned away together
            # apart.
            return fault.retry_after + random.uniform(0, min(1.0, self.polling.every))
        # Shorter where jobs are polled faster, as against the emulator.
        longest = min(LONGEST_WAIT_SECONDS, 4 * self.polling.every)
        return float(min(longest, min(1.0, self.polling.every) * 2 ** (failures - 1)) * random.uniform(0.5, 1.0))

    def _wait_for_turn(self) -> Generator[Event, None, None]:
        """Wait in the queue of this process's requests; who comes late to his turn does not hurry those behind him."""
        apart = 1 / self.polling.requests_per_second
        # Turns are given out when they are asked for, so that generators that run by turns keep their order.
        due = max(time.monotonic(), self._turn)
        self._turn = due + apart
        while (left := max(due, self._sent + apart) - time.monotonic()) > 0:
            yield Wait(left)
        self._sent = time.monotonic()


def refuse_page(response: Response) -> None:
    """Raise for a web page that comes with a good status, as from a proxy; the SDK would take it for an object."""
    if response.is_success and "html" in response.headers.get("content-type", ""):
        raise faults.PageError("a web page", request=response.request)


def now(asking: Asking[Answer]) -> Answer:
    """Carry out something with the service and return its answer, sleeping where there is nothing to do."""
    try:
        while True:
            event = next(asking)
            if isinstance(event, Wait):
                time.sleep(event.seconds)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
