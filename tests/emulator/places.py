"""What the service takes of one resource: so many jobs run, so many wait, so many jobs and files are kept.

Source: https://learn.microsoft.com/azure/foundry/openai/quotas-limits (February 2026). The refusals are unverified:
that page has numbers, not answers; `quotaExceeded` is in the error codes of the service's own specification.
"""

from typing import NamedTuple

from tests.emulator.course import TERMINAL, Course
from tests.emulator.messages import Refusal
from tests.emulator.records import File, Job

FULL = "quotaExceeded"
FOREVER = float("inf")


class Limits(NamedTuple):
    """The most of each that there may be; training in the developer tier has places of its own."""

    running: int = 3
    running_developer: int = 5
    queued: int = 20
    jobs: int = 100
    files: int = 100
    bytes: int = 1 << 30


UNLIMITED = Limits(*([1 << 62] * len(Limits._fields)))


def demand_place(limits: Limits, states: list[str]) -> None:
    """Refuse a job where as many wait as may, or as many are kept as may; `states` are those of all jobs there are."""
    waiting = [state for state in states if state not in TERMINAL and state != "running"]
    if len(waiting) >= limits.queued:
        raise Refusal(429, f"The maximum number of queued fine-tuning jobs ({limits.queued}) has been reached.", FULL)
    if len(states) >= limits.jobs:
        raise Refusal(429, f"The maximum number of fine-tuning jobs ({limits.jobs}) has been reached.", FULL)


def demand_room(limits: Limits, files: list[File], size: int) -> None:
    """Refuse a file where as many files or bytes are kept as may."""
    kept = [file for file in files if file.purpose == "fine-tune"]
    if len(kept) >= limits.files:
        raise Refusal(429, f"The maximum number of files ({limits.files}) has been reached.", FULL)
    if sum(len(file.content) for file in kept) + size > limits.bytes:
        raise Refusal(429, f"The maximum size of all files ({limits.bytes} bytes) has been reached.", FULL)


def begin(limits: Limits, courses: list[tuple[Job, Course]], now: float) -> Job | None:
    """Note it where the next waiting job has begun to run by now, first come first served; return that job."""
    for developer in (True, False):
        group = [each for each in courses if (str(each[0].training_type).lower() == "developertier") == developer]
        most = limits.running_developer if developer else limits.running
        ends = [_end(course) for job, course in group if job.began is not None]
        waiting = (job for job, course in group if job.began is None and _end(course) == FOREVER)
        job = next(waiting, None)
        if job is None:
            continue
        ready = job.created_at + job.script.validating_seconds + job.script.queued_seconds
        later = sorted(end for end in ends if end > ready)
        at = ready if len(later) < most else later[len(later) - most]
        if at <= now:
            job.began = at
            return job
    return None


def _end(course: Course) -> float:
    last = course.stages[-1]
    return last.time if last.status in TERMINAL else FOREVER
