"""A line on standard error for work that keeps a person waiting before a run begins: what, how far, how long still."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from runner import distributed
from runner.cost import duration
from runner.data.survey import Progress, Report
from runner.terminal import console

QUIET_SECONDS = 2.0
"""What takes less is not worth a line."""
PLAIN_SECONDS = 10.0
"""Time between two lines where there is no terminal."""
TERMINAL_SECONDS = 0.2
"""Time between two states of the one line that a terminal shows."""
_CLEAR = "\r\x1b[K"  # to the line's start, and erase it (ECMA-48, EL)


@contextmanager
def checking_data() -> Iterator[Report]:
    """Yield what a survey reports to; of several processes that work together the first one prints."""
    if not distributed.this_rank().first or console.terminal.quiet:
        yield lambda progress: None
        return
    line = Line()
    try:
        yield line
    finally:
        line.end()


class Line:
    """Prints progress: on a terminal one line that changes, elsewhere a line every ten seconds.

    The pace is that since the first report, as what is loaded before takes its own time.
    """

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._next = 0.0
        self._shown = False

    def __call__(self, progress: Progress) -> None:
        """Print how far it is, unless that was printed a moment ago or little is left."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._next = (now, progress.share), now + QUIET_SECONDS
        begun, share = self._first
        if now < self._next or progress.share <= share:
            return
        # By how much of the files is read: the number of rows is known only at the end.
        left = (now - begun) * (1 - progress.share) / (progress.share - share)
        # Over before it can be read.
        if left < QUIET_SECONDS and not self._shown:
            return
        self._print(f"checking the data: {progress.share:.0%}, {progress.rows:,} rows, about {duration(left)} left")
        self._shown, self._next = True, now + (TERMINAL_SECONDS if console.errors.is_terminal else PLAIN_SECONDS)

    def _print(self, text: str) -> None:
        if console.errors.is_terminal:
            console.errors.file.write(_CLEAR + text)
            console.errors.file.flush()
        else:
            console.complain(text)

    def end(self) -> None:
        """Take the line off the terminal."""
        if self._shown and console.errors.is_terminal:
            console.errors.file.write(_CLEAR)
            console.errors.file.flush()
