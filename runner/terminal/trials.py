"""A live table of a sweep's trials, on a terminal: who is at what, by their journals, wherever they run."""

import threading
from collections.abc import Mapping
from pathlib import Path

from rich.live import Live
from rich.table import Table

from runner.plan import Run
from runner.record import journal, layout
from runner.record.events import Failed, Metrics, StepDone, StepStarted, Stopped
from runner.terminal import console

TICK_SECONDS = 1.0
ROWS = 15
"""So many trials are shown at once: those at work, and the last ones that have a result."""


class Board:
    """Shows the table while it is entered; `runs`, by their trials' names, may grow meanwhile, as a search's do."""

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self._jobs = runs
        self._seen: dict[Path, tuple[int, list[str]]] = {}
        self._over = threading.Event()
        self._live = Live(console=console.terminal, auto_refresh=False, transient=True)
        self._thread = threading.Thread(target=self._follow, name="board", daemon=True)

    def __enter__(self) -> "Board":
        if console.terminal.is_terminal:
            self._live.start()
            # A thread, as the main one is in the launcher; it reads files only, so that trials on other machines are
            # seen.
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._live.stop()

    def _follow(self) -> None:
        while not self._over.wait(TICK_SECONDS):
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        # list(): a search adds trials from the main thread meanwhile.
        rows = {name: self._row(run.folder / layout.JOURNAL) for name, run in list(self._jobs.items())}
        begun = {name: row for name, row in rows.items() if row}
        ended = sum(row[0] in ("finished", "failed") for row in begun.values())
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left",
                      title=f"{ended} of {len(rows)} trials done")  # fmt: skip
        for head in ("trial", "state", "step", "loss", "held-out loss", "reward accuracy"):
            table.add_column(head, style="dim" if head == "trial" else "", header_style="dim")
        # Those at work first; sorted is stable, so that the others keep their order.
        for name, row in sorted(begun.items(), key=lambda each: each[1][0] == "finished")[:ROWS]:
            table.add_row(name, *row)
        return table

    def _row(self, path: Path) -> list[str]:
        """Return the cells of a trial that has begun; a journal is read when it has grown."""
        # Journals only grow: their size says whether there is anything new, on a network folder too.
        size = path.stat().st_size if path.exists() else 0
        if self._seen.get(path, (0, []))[0] != size:
            self._seen[path] = size, _cells(path)
        return self._seen.get(path, (0, []))[1]


def _cells(path: Path) -> list[str]:
    state, last_step, last = "begins", 0, dict[str, float]()
    for record in journal.read(path):
        match record.event:
            case StepStarted(step=step):
                state = step
            case StepDone(step="sample"):
                state = "finished"
            case Metrics(step=step_number, values=values):
                last_step, last = max(last_step, step_number), last | values
            case Failed():
                state = "failed"
            case Stopped():
                state = "stopped"
    names = ("train/loss", "eval/loss", "eval/reward_accuracy")
    return [state, str(last_step), *(f"{last[name]:.4g}" if name in last else "" for name in names)]
