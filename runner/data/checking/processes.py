"""The processes among which pieces of files are divided; few pieces are checked in this one, without any start-up."""

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import IO, Self

from runner import distributed
from runner.data.checking.cores import usable_cores
from runner.data.checking.job import Checked, Job, check
from runner.data.quality.unread_keys import Met
from runner.errors import DataError

MOST = 16
"""More processes would wait for this one, which takes a hash of all rows: a second for a million."""
HERE_BYTES = 24_000_000
"""So much is checked in half a second, about as long as a process takes to start."""
HERE_PIECES = 8
"""Pieces checked here before processes are started: `max_rows` may end the reading, and unknown keys show up."""
PIPE_BYTES = 1 << 20
"""What Linux lets anybody have (/proc/sys/fs/pipe-max-size), about a reply."""
_WORKER = "runner.data.checking.worker"


@dataclass(frozen=True)
class Processes:
    """How many processes check the rows, and after how many pieces they are started; 1 means this process alone."""

    count: int = 1
    after: int = HERE_PIECES

    @classmethod
    def usual(cls, num_bytes: int) -> Self:
        """Return one process for each core of this rank, for files of so many bytes."""
        if num_bytes <= HERE_BYTES:
            return cls()
        # Every rank checks the data, and all of a machine do so at the same time.
        cores = usable_cores() // distributed.this_rank().local_world_size
        return cls(max(1, min(cores, MOST)))


class Pool:
    """Checks pieces of files: the first ones here, then by other processes, each of which a thread here waits for.

    Its processes live until it is closed, by leaving its `with`.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._begun = 0
        self._threads = ThreadPoolExecutor(processes.count)
        self._idle = SimpleQueue[Worker]()
        self.workers: list[Worker] = []

    @property
    def ahead(self) -> int:
        """How many pieces are to be in work at a time; memory is bounded by it."""
        here = self._processes.count == 1 or self._begun < self._processes.after
        # Two for each process: one in work, and one that waits for it or for its turn here.
        return 1 if here else 2 * self._processes.count

    def start(self) -> None:
        """Start the processes, which takes them a quarter of a second, while the first pieces are checked here."""
        while len(self.workers) < self._processes.count > 1:
            try:
                worker = Worker()
            except OSError:
                return  # it cannot be started: its pieces are checked here
            self.workers.append(worker)
            self._idle.put(worker)

    def check(self, job: Job, met: Met) -> "Future[Checked]":
        """Begin to check a piece. The result raises `DataError` where the check does."""
        if self.ahead > 1:
            self.start()
            return self._threads.submit(self._asked, job, met)
        # Checked at once: nothing else would be done meanwhile.
        self._begun += 1
        done = Future[Checked]()
        try:
            done.set_result(check(job, met))
        except DataError as error:
            done.set_exception(error)
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """End all processes, and whatever is in work."""
        for worker in self.workers:
            worker.kill()
        # A thread that waited for one reads the end of its pipe now.
        self._threads.shutdown(cancel_futures=True)
        for worker in self.workers:
            worker.end()

    def _asked(self, job: Job, met: Met) -> Checked:
        """Have a piece checked by a process, or here if that is not possible."""
        try:
            worker = self._idle.get_nowait()  # there are as many threads
            reply = worker.ask(job, met)
        except (Empty, OSError, EOFError, pickle.UnpicklingError):
            # It could not be started, or was ended by the system, as where memory is short.
            return check(job, met)
        self._idle.put(worker)
        if isinstance(reply, DataError):
            raise reply
        return reply


class Worker:
    """A process that checks one piece after the other."""

    def __init__(self) -> None:
        # A session of its own, so that Ctrl-C reaches only the parent, which ends it.
        self._process = subprocess.Popen(
            # No `multiprocessing`: it would run the main module of whoever calls us, which may be a script
            # that does everything at import, and forking a process with threads can hang.
            [sys.executable, "-m", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(os.environ),
            start_new_session=True,
        )
        _widen(_pipe(self._process.stdout))

    def ask(self, job: Job, met: Met) -> Checked | DataError:
        """Return what the process replies. Raises `OSError` or `EOFError` if it is gone."""
        requests = _pipe(self._process.stdin)
        pickle.dump((job, met), requests, pickle.HIGHEST_PROTOCOL)
        requests.flush()
        reply: Checked | DataError = pickle.load(_pipe(self._process.stdout))
        return reply

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def kill(self) -> None:
        """Let the process end; it has nothing to save."""
        self._process.kill()

    def end(self) -> None:
        """End the process, and wait until it has; close its pipes."""
        self.kill()
        with suppress(BrokenPipeError), self._process:
            pass


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that imports from where this one does."""
    # numpy's threads would take the memory of a worker twice, and are not needed. The memory of one block serves the
    # next one, in place of being given back and asked for again page by page.
    kept = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
    return {**ours, **kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}


def _widen(stream: IO[bytes]) -> None:
    """Let a whole reply into a pipe: in Linux's usual 64 KB a worker waits for its reader 16 times, 7 % of all time."""
    with suppress(ImportError, AttributeError, OSError):  # another system, or more than this user may have
        import fcntl

        fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # Popen was asked for both
    return stream
