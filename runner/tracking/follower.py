"""A thread that sees to it that MLflow has what the journals hold; the runs never wait for it.

Whatever MLflow raises is kept and reported at the end: it must never cost a run. What could not be sent is sent the
next time.
"""

import threading
import time
from collections.abc import Sequence

from runner.plan import Run
from runner.record import layout
from runner.tracking.client import error_line, is_gone, store
from runner.tracking.sender import Position, Sender, position_of

TICK_SECONDS = 2.0
"""Time between two looks at the journals."""
RETRY_SECONDS = (0.0, 0.5, 2.0)
"""Pauses before each try to send what is left at a run's end. A store that answers may refuse one of several writers
that add the same thing at once: four runs with the same data set, before PostgreSQL (UniqueViolation, MLflow 3.17)."""


class Follower:
    """Follows the journals of runs, from now until `end`."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = [run for run in runs if run.request.tracking.enabled]
        self._problems: dict[str, str] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()
        # daemon: a store that does not answer must not keep a process alive that is done.
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)
        if self._runs:
            self._thread.start()

    def finish(self, run: Run, status: str) -> Position | None:
        """Send what is left of a run, its report and its status; return its position, None if it is not tracked."""
        with self._lock:
            if not self._follows(run):
                return None
            self._runs = [each for each in self._runs if each is not run]
            position = position_of(run)
            # A finished run that MLflow has whole is not touched: the same command again would only renew its times.
            gone = is_gone(store(run.request.tracking.uri))
            if position.status != status or self._behind(run, position) or gone:
                for seconds in RETRY_SECONDS:
                    time.sleep(seconds)
                    error = self._attempt(run, status)
                    # Sent, or nothing answers: then a second try would only make the user wait.
                    if error is None or not type(error).__module__.startswith("mlflow."):
                        break
        return position_of(run)

    def end(self) -> None:
        """Stop following."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def problem(self, run: Run) -> str:
        """Return what went wrong last with a run, if anything did."""
        return self._problems.get(run.plan.id, "")

    def _follow(self) -> None:
        while not self._over.wait(TICK_SECONDS):
            # A copy, as `finish` takes runs out meanwhile. It waits for one at most: each has the lock alone.
            for run in list(self._runs):
                with self._lock:
                    if not self._over.is_set() and self._follows(run) and self._behind(run, position_of(run)):
                        self._attempt(run)

    def _follows(self, run: Run) -> bool:
        return any(each is run for each in self._runs)

    def _behind(self, run: Run, position: Position) -> bool:
        journal = run.folder / layout.JOURNAL
        return journal.exists() and position.sent_bytes < journal.stat().st_size

    def _attempt(self, run: Run, status: str = "") -> Exception | None:
        """Send what is new of a run; return what went wrong, if anything did."""
        try:
            Sender(run, position_of(run)).send(status)
            self._problems.pop(run.plan.id, None)
        # Whatever it is: MLflow, SQLAlchemy, drivers of databases and the network have no common root.
        except Exception as error:
            self._problems[run.plan.id] = error_line(error, store(run.request.tracking.uri))
            return error
        return None
