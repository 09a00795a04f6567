"""Work that rank 0 alone does, such as grading, within steps that all ranks go through event by event."""

from collections.abc import Generator
from typing import TypeVar, cast

from runner import distributed

Told = TypeVar("Told")
Result = TypeVar("Result")


def in_lockstep(work: Generator[Told, None, Result]) -> Generator[Told, None, Result]:
    """Let rank 0 do some work, and the other ranks yield and return the same: after each event all of them agree on
    whether to stop. What is yielded and returned is pickled.
    """
    group = distributed.group()
    if group.rank.world_size == 1:
        return (yield from work)
    while True:
        # An event a time, not the whole result at the end: a signal to any rank is agreed on between two events.
        told, result = group.broadcast(_next(work) if group.rank.first else None)
        if told is None:
            return cast("Result", result)
        yield told


def _next(work: Generator[Told, None, Result]) -> tuple[Told | None, Result | None]:
    try:
        return next(work), None
    except StopIteration as done:
        return None, done.value
