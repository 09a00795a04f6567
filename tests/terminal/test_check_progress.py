"""A check of much data prints its progress to standard error for whoever waits, and nothing where it is quick."""

import io
import re

import pytest
from rich.console import Console

from runner.data.survey import Progress
from runner.terminal import check_progress, console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test sets."""
    now = [0.0]
    monkeypatch.setattr(check_progress.time, "monotonic", lambda: now[0])
    return now


def progress_of(clock: list[float], seconds: int, total: int = 100) -> None:
    """Report each second, at a pace of 1,000 rows a second, of what takes so many seconds in all."""
    with check_progress.checking_data() as report:
        for second in range(seconds + 1):
            clock[0] = 50.0 + second
            report(Progress(second / total, second * 1000))


def test_a_check_that_takes_a_moment_prints_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress_of(clock, 1)
    progress_of(clock, 3, total=3)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_a_long_check_prints_a_line_every_ten_seconds(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress_of(clock, 25)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "checking the data: 2%, 2,000 rows, about 1 min 38 s left",
        "checking the data: 12%, 12,000 rows, about 1 min 28 s left",
        "checking the data: 22%, 22,000 rows, about 1 min 18 s left",
    ]


def test_on_a_terminal_one_line_changes_and_is_gone_at_the_end(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(console, "errors", Console(file=terminal, force_terminal=True))
    progress_of(clock, 4)
    written = terminal.getvalue()
    assert re.findall(r"(\d+)%", written) == ["2", "3", "4"]
    assert "\n" not in written
    assert written.endswith("\r\x1b[K")


def test_of_several_processes_only_the_first_prints(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name, value in zip(names, ("1", "2", "1", "2", "localhost", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    progress_of(clock, 25)
    assert capsys.readouterr() == ("", "")
