"""A thread that sees to it that MLflow has what the journals hold; the runs never wait for it.

Whatever MLflow raises is kept and told at the end: it must never cost a run. What could not be sent is sent the
next time.
"""

import os
import socket
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from urllib.parse import urlsplit

from runner.plan import Run
from runner.record import layout
from runner.tracking.sender import Position, Sender, position_of, shown, store

TICK_SECONDS = 2.0
"""Time between two looks at the journals."""
CONNECT_SECONDS = 5.0
"""How long a store may take to answer at all."""
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


class Follower:
    """Follows the journals of runs, from now until `end`."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = [run for run in runs if run.request.tracking.enabled]
        self._problems: dict[str, str] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="tracking", daemon=True)
        if self._runs:
            self._thread.start()

    def finish(self, run: Run, status: str) -> Position | None:
        """Send what is left of a run, its report and its status; return where it stands, None if it is not tracked."""
        with self._lock:
            if not self._follows(run):
                return None
            self._runs = [each for each in self._runs if each is not run]
            position = position_of(run)
            if position.status != status or self._behind(run, position):
                self._attempt(run, status)
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
            for run in list(self._runs):
                with self._lock:
                    if not self._over.is_set() and self._follows(run) and self._behind(run, position_of(run)):
                        self._attempt(run)

    def _follows(self, run: Run) -> bool:
        return any(each is run for each in self._runs)

    def _behind(self, run: Run, position: Position) -> bool:
        journal = run.folder / layout.JOURNAL
        return journal.exists() and position.sent_bytes < journal.stat().st_size

    def _attempt(self, run: Run, status: str = "") -> None:
        # Without these the client tries a dead server for many minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        try:
            position = position_of(run)
            demand_answer(store(run.request.tracking.uri))
            Sender(run, position).send(status)
            self._problems.pop(run.plan.id, None)
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            uri = store(run.request.tracking.uri)
            self._problems[run.plan.id] = f"{type(error).__name__}: {first}".replace(uri, shown(uri))


def demand_answer(uri: str) -> None:
    """Raise `OSError` or `sqlite3.Error` where nothing answers at a tracking URI.

    MLflow itself tries a dead database again for a quarter of an hour, and must not be cut short once it
    creates tables; so it is asked only where something answers.
    """
    where = urlsplit(uri)
    scheme = where.scheme.partition("+")[0]
    if scheme == "sqlite":
        with closing(sqlite3.connect(uri.partition("///")[2])) as database:
            database.execute("PRAGMA schema_version")
    elif where.hostname and scheme in PORTS:
        socket.create_connection((where.hostname, where.port or PORTS[scheme]), CONNECT_SECONDS).close()
