"""A grader tried at the service before anything is uploaded: checked there, and a few answers graded there and here.

The service does both as a preview, by `fine_tuning/alpha/graders`; where it does not, only that is reported.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import msgspec
from openai import NotFoundError

from runner.backends import Result
from runner.data.rows import Row
from runner.graders import Grade, Grader, Sample, Subject
from runner.hosted.connection import Asking, Connection
from runner.hosted.rewards import wire
from runner.hosted.wording import line
from runner.record.events import Event, Note, Progress

ROWS = 5
"""Rows whose answers are compared: the reference, where it is a text, and an empty answer."""
LISTED = 3
"""Differences that are listed one by one."""
EQUAL = 1e-6
Answer = TypeVar("Answer")


def tried(service: Connection, grader: Grader, rows: Iterable[Row]) -> Generator[Event, None, Result]:
    """Have the service check a grader and grade answers to some rows; report where its score is not ours.

    Raises `RequestError` with the service's words where it refuses the grader, `AccessError` where the variable of a
    secret is not set.
    """
    sent: Any = wire(grader)
    alpha = service.openai.fine_tuning.alpha.graders
    if (yield from _offered(service, "validating rft.grader", lambda: alpha.validate(grader=sent))) is None:
        yield Note("this service does not validate graders (its preview may be off): rft.grader is sent unseen")
        return {"validated": False}
    if list(grader.models()) or grader.concurrent:  # each grade here would be paid for, or asked of your endpoint
        yield Note(f"the service takes grader {grader.name}; it asks a model or an endpoint, so no scores are compared")
        return {"validated": True}
    subjects = list(_subjects(islice(rows, ROWS)))
    differences = []
    with grader.grading(None) as grade:
        for number, (what, subject) in enumerate(subjects, 1):
            here = grade(subject)
            there = yield from _graded(service, sent, subject)
            if there is None:
                break
            if not _same(here, there):
                differences.append(f"the {what}: {_in_words(there)} there, {_in_words(here)} here")
            yield Progress("try_grader", number, len(subjects))
    if differences:
        more = f"; and {len(differences) - LISTED} more" if len(differences) > LISTED else ""
        yield Note(
            f"grader {grader.name}: the service gives other scores than this machine for {len(differences)} of "
            f"{len(subjects)} answers: {'; '.join(differences[:LISTED])}{more}"
        )
    else:
        yield Note(f"grader {grader.name}: the service takes it, and gives {len(subjects)} answers the same scores")
    return {"validated": True, "compared": len(subjects), "different": len(differences)}


def _subjects(rows: Iterable[Row]) -> Iterator[tuple[str, Subject]]:
    """Yield answers to rows, with what to call them."""
    for number, row in enumerate(rows, 1):
        item = msgspec.to_builtins(row.wire())
        reference = row.fields().get("reference")
        if isinstance(reference, str):
            yield f"reference of row {number}", Subject(item, Sample(reference))
        yield f"empty answer to row {number}", Subject(item, Sample(""))


def _graded(service: Connection, grader: Any, subject: Subject) -> Asking[Grade | None]:
    """Return the service's grade of an answer; None where it does not grade."""
    item: Any = dict(subject.item)
    alpha = service.openai.fine_tuning.alpha.graders
    text = subject.sample.text
    found = yield from _offered(
        service, "grading an answer at the service", lambda: alpha.run(grader=grader, model_sample=text, item=item)
    )
    if found is None:
        return None
    errors = [name for name, value in found.metadata.errors.to_dict().items() if value is True]
    return Grade(None, error=line(", ".join(errors))) if errors else Grade(float(found.reward))


def _offered(service: Connection, what: str, request: Callable[[], Answer]) -> Asking[Answer | None]:
    """Make a request; return None where the service knows no such address."""

    def ask() -> Answer | None:
        try:
            return request()
        except NotFoundError:
            return None

    return (yield from service.ask(what, ask))


def _same(here: Grade, there: Grade) -> bool:
    if here.score is None or there.score is None:
        return here.score is there.score
    return abs(here.score - there.score) <= EQUAL


def _in_words(grade: Grade) -> str:
    return f"an error ({grade.error})" if grade.score is None else f"{grade.score:.4g}"
