"""A run's events in the terminal as they come: a live bar on a terminal, a few plain lines anywhere else."""

import time
from collections.abc import Mapping

from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from runner import events
from runner.console import say, terminal
from runner.journal import Record
from runner.values import duration

PLAIN_SECONDS = 10.0
"""Time between two lines of progress where there is no terminal."""
QUIET_SECONDS = 60.0
"""The same for a hosted job, which takes hours."""

FIGURES = {"train/loss": "loss", "train/reward_accuracy": "reward accuracy", "system/tokens_per_second": "tokens/s"}
"""What stands beside the bar, and its short name."""

HELD_OUT = ("eval/loss", "eval/reward_accuracy", "eval/reward_margin", "eval/token_accuracy")
"""What is told of an evaluation."""


class Live:
    """Shows events; a listener, used inside `with`."""

    def __init__(self) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:9}"),
            BarColumn(24),
            TextColumn("{task.fields[count]}"),
        )
        self._bar = Bar(*columns, TimeElapsedColumn(), TextColumn("{task.fields[figures]}"), console=terminal)
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, int]] = {}
        self._printed = time.monotonic()

    def __enter__(self) -> "Live":
        if terminal.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if terminal.is_terminal:
            self._bar.stop()

    def __call__(self, record: Record) -> None:
        """Show one event."""
        match record.event:
            case events.Progress(text=text) as turn if text:
                self._turn(turn)
            case events.Progress(step=step, done=done, total=total, figures=figures):
                self._advance(step, done, total, figures)
            case events.State(what=what, value=value):
                self._tell(f"  {what}: {value}")
            case events.Said(text=text):
                self._tell(f"  service: {text}")
            case events.Created(what=what, id=name):
                self._tell(f"  created: {what} {name}")
            case events.Removed(what=what, id=name):
                self._tell(f"  removed: {what} {name}")
            case events.StepDone(step=step, seconds=seconds):
                self._end(step, seconds)
            case events.Metrics(at=at, values=values) if "eval/loss" in values:
                shown = [f"{name[5:].replace('_', ' ')} {values[name]:.3f}" for name in HELD_OUT if name in values]
                self._tell(f"  held-out rows after {at} steps: {', '.join(shown)}")
            case events.Note(text=text):
                self._tell(f"  note: {text}")

    def _advance(self, step: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if done <= self._begun.get(step, (0.0, 0))[1]:
            self._begun.pop(step, None)  # the step begins anew, as an evaluation in the course of training does
        since, first = self._begun.setdefault(step, (time.monotonic(), done))
        if done == total and step not in self._tasks and not terminal.is_terminal:
            return  # the line that says the step is done follows at once
        # A resumed step does not begin at nought: only the pace of this process tells the time left.
        left = (time.monotonic() - since) / (done - first) * (total - done) if done > first else 0.0
        told = "  ".join([*self._words(figures), *([f"{duration(left)} left"] if left else [])])
        if terminal.is_terminal:
            if step not in self._tasks:
                self._tasks[step] = self._bar.add_task(step, total=total, count="", figures="")
            self._bar.update(self._tasks[step], completed=done, total=total, count=f"{done}/{total}", figures=told)
        elif done and time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            say(f"  {step} {done}/{total}  {told}")

    def _turn(self, turn: events.Progress) -> None:
        """Show a step that runs elsewhere: in words, as its end may not be known."""
        told = "  ".join([turn.text, *self._words(turn.figures)])
        if terminal.is_terminal:
            if turn.step not in self._tasks:
                self._tasks[turn.step] = self._bar.add_task(turn.step, total=None, count="", figures="")
            count = f"{turn.done}/{turn.total}" if turn.total else ""
            self._bar.update(
                self._tasks[turn.step], completed=turn.done, total=turn.total or None, count=count, figures=told
            )
        elif time.monotonic() - self._printed > QUIET_SECONDS:
            self._printed = time.monotonic()
            say(f"  {turn.step}: {told}")

    @staticmethod
    def _words(figures: Mapping[str, float]) -> list[str]:
        return [f"{word} {figures[name]:.4g}" for name, word in FIGURES.items() if name in figures]

    def _end(self, step: str, seconds: float) -> None:
        if step in self._tasks:
            self._bar.update(self._tasks[step], visible=False)
        self._tell(f"✓ {step:9} {duration(seconds)}")

    def _tell(self, text: str) -> None:
        self._bar.console.print(Text(text)) if terminal.is_terminal else say(text)
