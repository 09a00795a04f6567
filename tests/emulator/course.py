"""The course of a job as a value: which state begins when, what is measured when. Everything is derived from it.

An engine reports a course; the past and, where it is scripted, the future. What is done to the job from outside
(pause, cancel, failure) changes the course, and the clock says how much of it has happened.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

from tests.emulator.records import Signal

TERMINAL = ("succeeded", "failed", "cancelled")
# How long a job takes to come to rest, or to get going again.
PAUSING_SECONDS = 0.05
# What a paused job still has before it is put off by a century; resuming brings it back.
FAR = 100 * 365 * 86400.0


class Stage(NamedTuple):
    """A state that begins at a time; `error` belongs to `failed`."""

    time: float
    status: str
    error: dict[str, Any] | None = None


class Measure(NamedTuple):
    """A row of metrics and when it was measured."""

    time: float
    row: dict[str, Any]


@dataclass(frozen=True)
class Course:
    """Stages and measures in the order of time; `total` is the number of optimizer steps, 0 where not known."""

    stages: tuple[Stage, ...]
    measures: tuple[Measure, ...] = ()
    total: int = 0

    def stage(self, now: float) -> Stage:
        """Return the stage that the job is in."""
        return [self.stages[0], *(stage for stage in self.stages if stage.time <= now)][-1]

    def until(self, now: float) -> "Course":
        """Return what has happened so far."""
        stages = tuple(stage for stage in self.stages if stage.time <= now)
        measures = tuple(measure for measure in self.measures if measure.time <= now)
        return Course(stages or self.stages[:1], measures, self.total)

    def table(self) -> list[dict[str, Any]]:
        """Return what was measured, one row a step, though a step may be measured in parts."""
        rows: dict[int, dict[str, Any]] = {}
        for measure in self.measures:
            rows.setdefault(measure.row["step"], {}).update(measure.row)
        return [rows[step] for step in sorted(rows)]


def disturbed(course: Course, signals: list[Signal]) -> Course:
    """Return the course with all that was done to the job from outside, in the order it was done."""
    return reduce(_disturb, signals, course)


def _disturb(course: Course, signal: Signal) -> Course:
    past = course.until(signal.time)
    if past.stages[-1].status in TERMINAL:
        return course
    if signal.kind == "pause":
        stages = (Stage(signal.time, "pausing"), Stage(signal.time + PAUSING_SECONDS, "paused", signal.error))
        return _inserted(past, stages, _later(course, signal.time, FAR))
    if signal.kind == "resume":
        paused = next(stage.time for stage in reversed(past.stages) if stage.status == "pausing")
        lost = signal.time + PAUSING_SECONDS - paused
        stages = (Stage(signal.time, "resuming"), Stage(signal.time + PAUSING_SECONDS, "running"))
        return _inserted(past, stages, _later(course, signal.time, lost - FAR))
    return _inserted(past, (Stage(signal.time, signal.kind, signal.error),), Course(()))


def _inserted(past: Course, stages: tuple[Stage, ...], rest: Course) -> Course:
    return Course((*past.stages, *stages, *rest.stages), (*past.measures, *rest.measures), past.total)


def _later(course: Course, after: float, seconds: float) -> Course:
    stages = tuple(stage._replace(time=stage.time + seconds) for stage in course.stages if stage.time > after)
    measures = tuple(item._replace(time=item.time + seconds) for item in course.measures if item.time > after)
    return Course(stages, measures)
