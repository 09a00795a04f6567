"""Runs that an agent starts and looks at. Each is a process of its own, which outlives the server and resumes."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from runner.errors import RequestError
from runner.record import journal, layout, outcome, run_folders
from runner.record.events import Failed, Metrics, Note, StepDone, StepStarted, Stopped

NOTES = 10
"""The latest notes that are shown; all are in the journal."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a run has come. `state` is running, finished, failed, stopped, or unfinished: it can be resumed."""

    run: str
    state: str
    message: str
    done: list[str]
    """The steps that are done."""
    step: str
    """The step that was begun last."""
    optimizer_steps: int
    metrics: dict[str, float]
    """The last value of each."""
    notes: list[str]
    model: str | None
    """Where the result is."""
    output: str
    """The file with what the process has printed, where it was started here."""


def start(folder: Path, overrides: Sequence[str], max_price: float | None) -> int:
    """Start a run in a process of its own; return its id. What it prints goes into the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    price = [] if max_price is None else [f"max_price={max_price}"]
    with (folder / layout.OUTPUT).open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "runner", *overrides, *price],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            # Not ended by the Ctrl-C, or the end, of the agent's program.
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    _STARTED[folder.resolve()] = process
    return process.pid


_STARTED: dict[Path, "subprocess.Popen[bytes]"] = {}
"""The processes that this server has started, so that it knows one that has not taken its lock yet, or never did."""


def is_running(folder: Path) -> bool:
    """Say whether a process works on a run, whoever started it."""
    process = _STARTED.get(folder.resolve())
    if process is not None and process.poll() is None:
        return True
    if not (folder / layout.LOCK).exists():
        return False
    # The lock is the system's: it is free the moment a process dies, while a file with its id would stay.
    try:
        with FileLock(folder / layout.LOCK, timeout=0):
            return False
    except Timeout:
        return True


def status(folder: Path) -> Status:
    """Return how far a run has come."""
    records = journal.read(folder / layout.JOURNAL)
    events = [record.event for record in records]
    report, state, message = outcome.read(folder), "unfinished", ""
    # A report of an earlier process, where the latest was killed before it wrote one.
    if report is not None and records and report["ended"] != records[-1].time:
        report = None
    if is_running(folder):
        state, report = "running", None
    elif report is not None:
        state, message = report["status"], report["message"]
    elif (last := next((each for each in reversed(events) if isinstance(each, Failed | Stopped)), None)) is not None:
        state, message = ("failed", last.message) if isinstance(last, Failed) else ("stopped", last.reason)
    elif not events and (folder / layout.OUTPUT).exists():
        # It ended before it had a journal: a mistake in the request, in a sentence.
        state, message = "failed", _last_line(folder / layout.OUTPUT)
    model = report["model"]["model"] if report is not None and report["model"] is not None else None
    measured = [each for each in events if isinstance(each, Metrics)]
    begun = [each.step for each in events if isinstance(each, StepStarted)]
    return Status(
        run=str(folder),
        state=state,
        message=message,
        done=list(dict.fromkeys(each.step for each in events if isinstance(each, StepDone))),
        step=begun[-1] if begun else "",
        optimizer_steps=max((each.step for each in measured), default=0),
        metrics=outcome.last_values(records),
        notes=[each.text for each in events if isinstance(each, Note)][-NOTES:],
        model=model,
        output=str(folder / layout.OUTPUT) if (folder / layout.OUTPUT).exists() else "",
    )


def every(runs: Path) -> list[Status]:
    """Return how far each run has come that has begun, the last changed one last."""
    return [status(folder) for folder in run_folders.every(runs)]


def report(folder: Path) -> str:
    """Return a run's report as Markdown. Raises `RequestError` where there is none yet."""
    page = folder / layout.REPORT_PAGE
    if not page.exists():
        raise RequestError(f"{folder}: has no report yet; it is written when the run ends; ask for its status.")
    return page.read_text("utf-8")


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
