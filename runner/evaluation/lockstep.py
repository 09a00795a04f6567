"""Work that rank 0 alone does, such as grading, within steps that all ranks go through event by event."""

from collections.abc import Generator
from typing import TypeVar, cast

from runner import distributed

Yielded = TypeVar("Yielded")
Result = TypeVar("Result")


def in_lockstep(work: Generator[Yielded, None, Result]) -> Generator[Yielded, None, Result]:
    """Let rank 0 do some work, and the other ranks yield and return the same: after each event all of them agree on
    whether to stop. Yielded and returned values are pickled.
    """
    group = distributed.group()
    if group.rank.world_size == 1:
        return (yield from work)
    while True:
        # One event at a time, not the whole result at the end: a signal to any rank is agreed on between two events.
        event, result = group.broadcast(_next(work) if group.rank.first else None)
        if event is None:
            return cast("Result", result)
        yield event


def _next(work: Generator[Yielded, None, Result]) -> tuple[Yielded | None, Result | None]:
    try:
        return next(work), None
    except StopIteration as done:
        return None, done.value
