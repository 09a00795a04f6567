"""The rows of a selection as a survey needs them, in their order, however many processes check them."""

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

from runner.data.checking.job import Checked, Job, check
from runner.data.checking.processes import Pool
from runner.data.findings import Finding
from runner.data.measured import Measured
from runner.data.quality.unread_keys import NOTHING_MET, Met
from runner.data.reading.files import DataFile
from runner.data.reading.row_reader import open_file
from runner.data.splits import Divided, Selection, Split, mixed, sources, splits_of, taken
from runner.errors import DataError


def measured_parts(
    selection: Selection, report: Callable[[Finding], None], pool: Pool
) -> Iterator[tuple[Split, Measured]]:
    """Yield the parts of each block in order, and report what was found up to the last row that is used.

    Raises `DataError` if a file cannot be read.
    """
    selection = mixed(selection)
    if selection.max_rows is None:  # else the first pieces may have all that are wanted
        pool.start()
    for files, splits in sources(selection, splits_of(selection)):
        blocks = _in_order(_jobs(selection, files, splits), pool)
        yield from taken(selection, blocks, splits, report)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Rows have no cycles, and looking for some takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _jobs(selection: Selection, files: Sequence[DataFile], splits: Sequence[Split]) -> Iterator[Job]:
    """Yield each piece of the files as a job. Raises `DataError` if a file cannot be read."""
    # A job goes through a pipe: a thousand names of files are not needed there.
    own = replace(selection, train="", validation=None if selection.validation is None else "", mix=(), bounds=None)
    bounds = dict(selection.bounds or ())
    for file in files:
        own = replace(own, bounds=((file.name, bounds[file.name]),) if file.name in bounds else None)
        opened = open_file(file, selection.format, selection.kind)
        findings: Sequence[Finding] = opened.findings
        for piece in opened.pieces:
            yield Job(file, opened.format.name, piece, own, splits, findings)
            findings = ()


def _in_order(jobs: Iterator[Job], pool: Pool) -> Iterator[Divided[Measured]]:
    """Yield what comes of jobs in their order, some of which are in work ahead.

    What is found in a piece depends on the keys met before in its file, which pieces ahead do not know yet. They take
    those of the last piece that is done, as a file has few; where it had further ones, they are checked again.
    """
    waiting: deque[tuple[Job, Met, Future[Checked]]] = deque()
    met: dict[str, Met] = {}
    failed: list[DataError] = []
    while True:
        while not failed and len(waiting) < pool.ahead and (job := _next(jobs, failed)):
            known = met.get(job.file.name, NOTHING_MET)
            waiting.append((job, known, pool.check(job, known)))
        if not waiting:
            break
        job, known, future = waiting.popleft()
        before = met.get(job.file.name, NOTHING_MET)
        # Rare: the first pieces of a file, checked one by one, have shown nearly all of its keys.
        found = future.result() if known == before else check(job, before)
        met = {job.file.name: found.met}
        yield found.divided
    # What is wrong with a file is raised in its turn, after what comes before it.
    for error in failed:
        raise error


def _next(jobs: Iterator[Job], failed: list[DataError]) -> Job | None:
    try:
        return next(jobs, None)
    except DataError as error:
        failed.append(error)
        return None
