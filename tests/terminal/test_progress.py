"""What is seen of a run while it continues: what is being done, how far it is, how long it will still take."""

import io
import re
from collections.abc import Sequence

import pytest
from rich.console import Console

from runner.record.events import Event, Metrics, Note, Progress, StepDone, StepStarted
from runner.record.journal import Record
from runner.terminal.progress import Live

Timed = Sequence[tuple[float, Event]]


def shown(timed: Timed, is_terminal: bool = False, width: int = 120) -> str:
    """Return what is printed of events that come at these seconds."""
    output = Console(file=io.StringIO(), force_terminal=is_terminal, width=width, highlight=False, color_system=None)
    with Live(output) as live:
        for seconds, event in timed:
            live(Record(1e9 + seconds, event))
    assert isinstance(output.file, io.StringIO)
    return output.file.getvalue()


def lines(timed: Timed) -> list[str]:
    """Return the lines that are printed where there is no terminal."""
    return shown(timed).splitlines()


def last_line(reported: str) -> str:
    """Return the last line that a terminal shows, without its control sequences."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", reported).rstrip().splitlines()[-1]


def steady(total: int, seconds_each: float, step: str = "train", what: str = "", first: int = 0) -> Timed:
    """Return the events of work at a steady rate."""
    done = range(first, total + 1)
    return [((number - first) * seconds_each, Progress(step, number, total, what=what)) for number in done]


def test_each_step_is_named_when_it_starts_and_when_it_is_done() -> None:
    assert lines([(0, StepStarted("prepare")), (12, StepDone("prepare", "", 12.0, {}))]) == [
        "  prepare …",
        "✓ prepare   12 s",
    ]


def test_a_step_that_takes_less_than_five_seconds_has_no_line_of_progress() -> None:
    assert lines(steady(10, 0.4)) == []


def test_after_five_seconds_a_line_reports_how_far_a_step_is_its_rate_and_the_time_left() -> None:
    assert lines(steady(10, 1.0))[0] == "  train  5/10  1.0/s  5.0 s left"
    assert lines(steady(2299, 0.05))[0] == "  train  100/2,299  20/s  1 min 50 s left"
    assert lines(steady(90_000, 0.0005))[0] == "  train  10,000/90,000  2,000/s  40 s left"
    assert lines(steady(2299, 2.5))[0] == "  train  2/2,299  2.5 s each  1 h 35 min left"


@pytest.mark.parametrize(
    ("total", "seconds_each", "at"),
    [
        (100, 1.0, [5, 65]),  # 10 % take 10 s: a line a minute
        (100, 30.0, [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]),  # 10 % take 5 minutes
        (100, 300.0, [1, 3, 5]),  # 10 % take 50 minutes: a line in ten
    ],
    ids=["short", "an hour", "a night"],
)
def test_then_a_line_comes_with_each_tenth_that_takes_a_minute_or_more(
    total: int, seconds_each: float, at: list[int]
) -> None:
    reported = [int(line.split()[1].partition("/")[0]) for line in lines(steady(total, seconds_each))]
    assert reported[: len(at)] == at
    assert len(reported) == len(at) or seconds_each == 300.0


def test_the_rate_of_a_resumed_step_is_that_of_this_process() -> None:
    assert lines(steady(100, 6.0, first=90))[0] == "  train  91/100  6.0 s each  54 s left"


def test_a_phase_of_a_step_is_named_as_it_begins_and_counted_by_itself() -> None:
    begun: Timed = [(0, StepStarted("prepare"))]
    tokens = steady(1000, 0.001, "prepare", "tokenising")
    values = [(1 + at, event) for at, event in steady(20, 1.0, "prepare", "reference log-probabilities")]
    assert lines([*begun, *tokens, *values]) == [
        "  prepare …",
        "  prepare  0/1,000  tokenising",
        "  prepare  0/20  reference log-probabilities",
        "  prepare  5/20  1.0/s  15 s left  reference log-probabilities",
    ]


def test_a_phase_that_comes_again_is_named_once() -> None:
    turns = [(at, event) for at, event in steady(3, 0.1, "train", "reference log-probabilities")]
    again = [(10 + at, event) for at, event in turns]
    assert len(lines([*turns, *again])) == 1


def test_an_evaluation_in_the_course_of_training_is_counted_again_each_time() -> None:
    first = steady(16, 0.1, "evaluate", first=8)
    later = [(1000 + at, event) for at, event in steady(16, 1.0, "evaluate", first=8)]
    assert lines([*first, *later]) == ["  evaluate  13/16  1.0/s  3.0 s left"]


def test_figures_of_training_are_reported_by_short_names() -> None:
    figures = {"train/loss": 0.69314, "train/reward_accuracy": 0.5, "train/other": 1.0}
    reported = lines([(0, Progress("train", 0, 8)), (6, Progress("train", 2, 8, figures))])
    assert reported == ["  train  2/8  3.0 s each  18 s left  loss 0.6931  reward accuracy 0.5"]


def test_a_step_that_runs_elsewhere_is_reported_in_its_own_words_each_minute() -> None:
    looks: Timed = [(at, Progress("follow", 0, 0, {}, "ftjob-1 queued")) for at in range(0, 130, 2)]
    assert lines(looks) == ["  follow  ftjob-1 queued"] * 3


def test_notes_and_evaluations_are_reported_at_once() -> None:
    values = {"eval/loss": 0.5, "eval/reward_accuracy": 0.75}
    assert lines([(0, Note("a choice")), (0, Metrics(4, values))]) == [
        "  note: a choice",
        "  held-out rows after 4 steps: loss 0.500, reward accuracy 0.750",
    ]


def test_a_terminal_shows_phase_rate_and_time_left_of_the_step_under_way() -> None:
    reported = shown([(0, StepStarted("prepare")), *steady(20, 1.0, "prepare", "tokenising")[:11]], is_terminal=True)
    last = last_line(reported)
    for word in ("prepare", "10/20", "tokenising", "1.0/s", "10 s left"):
        assert word in last


def test_a_terminal_keeps_the_step_under_way_on_one_line_of_80_columns() -> None:
    figures = {"train/loss": 0.69314, "train/reward_accuracy": 0.5, "system/tokens_per_second": 1234.5}
    timed: Timed = [(0, StepStarted("train")), *((at, Progress("train", at, 1000, figures)) for at in range(0, 400, 7))]
    last = last_line(shown(timed, is_terminal=True, width=80))
    assert len(last) <= 80
    for word in ("train", "399/1,000", "1.0/s", "10 min 1 s left"):
        assert word in last
