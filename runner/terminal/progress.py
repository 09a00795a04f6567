"""A run's events in the terminal as they come: a live bar on a terminal, plain lines anywhere else.

Both say what is being done, how far it is and how long it will still take. Times are the records' own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from runner import methods
from runner.cost import duration
from runner.record import events
from runner.record.journal import Record
from runner.terminal import console

FIRST_SECONDS = 5.0
"""Without a terminal, the first line of progress comes when a step has taken so long."""
NEXT_SECONDS = 60.0
"""The next one comes at the earliest so long after,"""
NEXT_SHARE = 0.1
"""when so much more is done: some ten lines per step, however long it takes;"""
LONGEST_SECONDS = 600.0
"""but at the latest after so long."""

HEADLINES = {f"train/{each.name}": each.label for each in methods.metrics().values() if each.headline}
FIGURES = HEADLINES | {"system/tokens_per_second": "tokens/s"}
"""Metrics of training that are shown with the progress, and their labels."""
HELD_OUT = {f"eval/{each.name}": each.label for each in methods.metrics().values() if each.shown}
"""Metrics that are shown of an evaluation, and their labels."""
EVALUATED = {f"eval/{name}" for name in methods.headlines()}
"""Metrics of which an evaluation has one at least."""


@dataclass
class Phase:
    """What was counted of a phase of a step since this process first heard of it, and when that was last printed.

    A resumed step does not begin at 0: the rate is that of this process alone.
    """

    began: float
    first: int
    done: int
    printed: float | None = None
    printed_done: int = 0

    def restarts(self, done: int, total: int) -> bool:
        """Say whether the count begins again, as that of an evaluation does in the course of training."""
        # A count that was complete and is reported again has begun again, even at the same number.
        return done < self.done or self.done == total > 0

    def pace(self, now: float) -> float:
        """Return what is done in a second, 0 where that is not known yet."""
        # By the records' times, so that a journal read afterwards gives the same pace.
        return (self.done - self.first) / (now - self.began) if now > self.began else 0.0

    def due(self, now: float, total: int) -> bool:
        """Say whether a line is to be printed where there is no terminal."""
        if self.printed is None:
            return now - self.began >= FIRST_SECONDS
        waited = now - self.printed
        more = not total or self.done - self.printed_done >= NEXT_SHARE * total
        return waited >= LONGEST_SECONDS or (waited >= NEXT_SECONDS and more)


class _Words(ProgressColumn):
    """The words shown with a task; the one column that is cut where the terminal is narrow."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["words"], no_wrap=True, overflow="ellipsis")


class Live:
    """Shows events; a listener, used inside `with`."""

    def __init__(self, output: Console | None = None) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:9}"),
            BarColumn(16),
            TextColumn("{task.fields[count]}"),
        )
        self._output = output = output or console.terminal
        self._bar = Bar(*columns, TimeElapsedColumn(), _Words(), console=output)
        self._tasks: dict[str, TaskID] = {}
        self._phases: dict[tuple[str, str], Phase] = {}
        self._step = ""

    def __enter__(self) -> "Live":
        if self._output.is_terminal:
            # Only on a terminal: elsewhere rich would print every state of the bar.
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._output.is_terminal:
            self._bar.stop()

    def __call__(self, record: Record) -> None:
        """Show one event."""
        match record.event:
            case events.StepStarted(step=step):
                self._start(step)
            case events.Progress() as progress:
                self._advance(progress, record.time)
            case events.StepDone(step=step, seconds=seconds):
                self._end(step, seconds)
            case events.State(what=what, value=value):
                self._print(f"  {what}: {value}")
            case events.Said(text=text):
                self._print(f"  service: {text}")
            case events.Created(what=what, id=name):
                self._print(f"  created: {what} {name}")
            case events.Removed(what=what, id=name):
                self._print(f"  removed: {what} {name}")
            # Training's own metrics come with the progress, many times per minute.
            case events.Metrics(step=step, values=values) if values.keys() & EVALUATED:
                shown = [f"{label} {values[name]:.3f}" for name, label in HELD_OUT.items() if name in values]
                self._print(f"  held-out rows after {step} steps: {', '.join(shown)}")
            case events.Note(text=text):
                self._print(f"  note: {text}")

    def _start(self, step: str) -> None:
        self._step = step
        if self._output.is_terminal:
            self._task(step)
        else:
            self._print(f"  {step} …")

    def _advance(self, progress: events.Progress, now: float) -> None:
        step, done, total = progress.step, progress.done, progress.total
        phase = self._phases.get((step, progress.what))
        is_new = phase is None
        if phase is None or phase.restarts(done, total):
            phase = self._phases[step, progress.what] = Phase(now, done, done)
        phase.done = done
        words = _words(progress, phase.pace(now))
        if self._output.is_terminal:
            count = f"{done:,}/{total:,}" if total else ""
            self._bar.update(self._task(step), completed=done, total=total or None, count=count, words="  ".join(words))
            if done == total and step != self._step:  # an evaluation in the course of training has no end of its own
                self._hide(step)
        # Without a terminal, a line each time would fill a log with thousands.
        elif phase.due(now, total) and (progress.text or done != total):  # else the line that says it is done follows
            self._print_progress(progress, words)
            phase.printed, phase.printed_done = now, done
        elif is_new and progress.what and (done != total or not total):
            self._print_progress(progress, words)

    def _print_progress(self, progress: events.Progress, words: list[str]) -> None:
        count = [f"{progress.done:,}/{progress.total:,}"] if progress.total else []
        self._print("  " + "  ".join([progress.step, *count, *words]))

    def _task(self, step: str) -> TaskID:
        if step not in self._tasks:
            self._tasks[step] = self._bar.add_task(step, total=None, count="", words="")
        return self._tasks[step]

    def _hide(self, step: str) -> None:
        if step in self._tasks:
            self._bar.remove_task(self._tasks.pop(step))

    def _end(self, step: str, seconds: float) -> None:
        self._hide(step)
        # A step that comes again (another evaluation) is timed from its own start.
        self._phases = {key: phase for key, phase in self._phases.items() if key[0] != step}
        self._print(f"✓ {step:9} {duration(seconds)}")

    def _print(self, text: str) -> None:
        self._output.print(Text(text), soft_wrap=True)


def _words(progress: events.Progress, pace: float) -> list[str]:
    """Return the rate, the time left, what is being done and the figures, as far as they are known."""
    words = []
    if pace and not progress.text:  # what a hosted job does is counted from when it was last asked
        each = f"{pace:,.0f}/s" if pace >= 10 else f"{pace:.1f}/s"
        words.append(each if pace >= 1 else f"{duration(1 / pace)} each")
        words += [f"{duration((progress.total - progress.done) / pace)} left"] if progress.total else []
    words += [each for each in (progress.what, progress.text) if each]
    # Figures last: where the terminal is narrow they are what is cut off.
    return words + _figures(progress.figures)


def _figures(figures: Mapping[str, float]) -> list[str]:
    return [f"{word} {figures[name]:.4g}" for name, word in FIGURES.items() if name in figures]
