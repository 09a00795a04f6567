"""Answers on their way: fetched by threads of their own while the next requests are sent."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from runner.remote.engine.ledger import Entry
from runner.remote.engine.service import Answer, Operation


class Coming:
    """The answer of a request that a service has taken, asked for at once."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        """`ask` waits for the answer; what it raises, `answer` raises."""
        self._ask = ask
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        # daemon: one that is given up, as its session is over, does not keep the process from ending.
        self._thread = threading.Thread(target=self._fetch, name="answer", daemon=True)
        self._thread.start()

    def answer(self) -> Answer:
        """Wait for the answer."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    def wait(self, seconds: float) -> None:
        """Wait at most so long, whatever comes."""
        self._thread.join(seconds)

    def _fetch(self) -> None:
        try:
            self._answer = self._ask()
        except BaseException as error:
            self._error = error


@dataclass
class UnderWay:
    """An operation that was started, and what is to be done once its answer is noted."""

    entry: Entry
    operation: Operation
    coming: Coming | None
    """None where it is waited for at once, or nobody knows whether the service has taken the request."""
    then: Callable[[Answer], None]
