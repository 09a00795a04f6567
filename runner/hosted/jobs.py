"""Jobs at the service: one per plan, never created blindly.

    intent in the journal → look for a job of this plan → only then send, once → look again if the answer is lost

A job is known by the plan id in its metadata; where a service does not show metadata, by the suffix in its
model's name; and where neither is shown, as one with our training file that was not there at the intent.
"""

import random
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import msgspec

from runner.backends import RemoteJob
from runner.errors import FullError
from runner.hosted import methods
from runner.hosted.connection import Asking, Connection, now
from runner.hosted.lock import Claim
from runner.plan import Plan
from runner.record.events import Created, Event, Intent, Note, State, Wait

if TYPE_CHECKING:
    from openai.types.fine_tuning import FineTuningJob

PLAN_ID, ATTEMPT = "runner_plan_id", "runner_attempt"
"""Keys of a job's metadata."""
FAILED = {"failed", "cancelled", "canceled", "deleted"}
ENDED = FAILED | {"succeeded"}
WAITS = "waiting for its turn"
"""The state of a job that the service has no place for yet."""
LOOKS_FOR_A_PLACE = 40
"""Looks, over ten minutes, before a job is sent again though none has ended: a limit may have been raised."""
LOOKS = 3
"""Looks, over a few seconds, before a job whose answer was lost is taken not to exist."""


def default_suffix(plan_id: str) -> str:
    """Return the suffix of a plan's model, 18 characters: all that the service takes."""
    return f"r-{plan_id[:16]}"


def arguments(
    plan: Plan,
    model: str,
    files: Mapping[str, str],
    suffix: str,
    extra: Mapping[str, object],
    method_extras: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return the arguments of `fine_tuning.jobs.create` but the metadata; what the service decides is left out.

    `extra` are keys of one service only; `method_extras` are sent next to the hyperparameters, and may hold secrets.
    `None` would go out as null, which the service may refuse.
    Source: https://platform.openai.com/docs/api-reference/fine-tuning/create
    """
    form = methods.load(plan.method)
    # `auto` is what the service does with a key that is not sent.
    others = {*form.fixed, *form.extra_keys}
    chosen = {key: value for key, value in plan.hyperparameters.items() if value != "auto" and key not in others}
    validation = {"validation_file": files["validation"]} if "validation" in files else {}
    return {
        "model": model,
        "training_file": files["train"],
        **validation,
        "method": {"type": form.type, form.type: {**(method_extras or {}), "hyperparameters": chosen}},
        "seed": plan.seed,
        "suffix": suffix,
        # Azure's trainingType, say, which the SDK's own arguments lack; they are sent next to the others.
        "extra_body": dict(extra),
    }


def is_of(job: "FineTuningJob", plan_id: str, suffix: str, same_work: bool = False) -> bool:
    """Say whether a job at the service is one of a plan; `same_work` that it has the plan's data and model."""
    shown = job.metadata or {}
    # The surest sign, and the last word: a job of another plan is never taken for ours by its name.
    if PLAN_ID in shown:
        return shown[PLAN_ID] == plan_id
    # A suffix of the user's own names many plans' models; the usual one has 64 bits of the plan id.
    if suffix != default_suffix(plan_id) and not same_work:
        return False
    extra = job.model_extra or {}
    # Services show the suffix under different keys, and within the model's name once there is a model.
    names = (job.fine_tuned_model, extra.get("suffix"), extra.get("user_provided_suffix"))
    return any(suffix in name for name in names if isinstance(name, str))


def winner(jobs: Sequence["FineTuningJob"]) -> "FineTuningJob | None":
    """Return the job that counts as a plan's: one that may still succeed before a failed one, then the oldest."""
    # The same rule on every machine, so that two that have both created a job keep the same one; the id
    # decides within a second.
    return min(jobs, key=lambda job: (job.status in FAILED, job.created_at, job.id)) if jobs else None


def listed(service: Connection) -> Asking[list["FineTuningJob"]]:
    """Return all jobs of the service, newest first."""
    return (
        yield from service.collect(
            "listing the service's jobs", lambda **page: service.openai.fine_tuning.jobs.list(**page)
        )
    )


def _under_way(jobs: Sequence["FineTuningJob"]) -> int:
    return sum(job.status not in ENDED for job in jobs)


class ServiceJobs:
    """The jobs of a service, as `python -m runner.jobs` lists and changes them."""

    def __init__(self, service: Connection) -> None:
        self.service, self.endpoint = service, service.endpoint

    def list(self) -> Sequence[RemoteJob]:
        """Return all jobs, newest first."""
        return [
            RemoteJob(
                id=str(job.id),
                state=str(job.status),
                created_at=float(job.created_at),
                model=str(job.fine_tuned_model or job.model),
                plan_id=str((job.metadata or {}).get(PLAN_ID, "")),
            )
            for job in now(listed(self.service))
        ]

    def change(self, verb: str, job: str) -> str:
        """Cancel, pause or resume a job; return its state."""
        request = getattr(self.service.openai.fine_tuning.jobs, verb)
        return str(now(self.service.ask(f"{verb} {job}", lambda: request(job))).status)


class JobIntent(TypedDict):
    """What the journal keeps of a job that is about to be sent, so that it is recognised afterwards."""

    ignored: list[str]
    """Jobs of the plan that have ended and do not count, as a new one is asked for."""
    there: list[str]
    """Jobs with the same training file that are there already."""
    training_file: str


class JobMaker:
    """Finds a plan's job, or creates it."""

    def __init__(self, service: Connection, plan: Plan, arguments: Mapping[str, object], again: bool) -> None:
        self.service, self.plan, self.arguments, self.again = service, plan, dict(arguments), again
        self._idle = False  # whether no job was under way when the service last had no place

    def ensure(self, intent: Mapping[str, object] | None, made: str | None) -> Generator[Event, None, str]:
        """Return the id of the plan's job, created if there is none.

        `intent` and `made` are what the journal has: what was about to be sent, and the job that came of it.
        """
        # From the look to the journal's entry: another process of this machine looks after that.
        claim = Claim(f"job-{self.plan.id}")
        yield from claim.take()
        try:
            if intent is not None:
                sent = msgspec.convert(intent, JobIntent)
                found = (yield from self._look(sent)) if made is None else None
            else:
                jobs = yield from listed(self.service)
                theirs = [job for job in jobs if self._ours(job, ())]
                # `again=true` asks for a new one; a job that still runs is followed all the same, as two at once would
                # be paid for twice.
                ignored = [job.id for job in theirs if self.again and job.status in ENDED]
                found = winner([job for job in theirs if job.id not in ignored])
                if found is not None:
                    yield Note(f"the service has a job of this plan, {found.id} ({found.status}): it is followed")
                    return str(found.id)
                sent = yield from self._intend(jobs, ignored)
            while made is None:
                try:
                    made = str((found or (yield from self._create(sent))).id)
                except FullError as full:
                    # Turned away, it made nothing: what is there by then is not taken for it.
                    sent = yield from self._intend((yield from self._place(full)), sent["ignored"])
                else:
                    yield Created("job", made, {"model": self.arguments["model"]})
        finally:
            claim.drop()
        return (yield from self._settle(made, sent["ignored"]))

    def _intend(self, jobs: Sequence["FineTuningJob"], ignored: list[str]) -> Generator[Event, None, JobIntent]:
        """Note in the journal what is about to be sent: whoever comes after a kill knows that there may be one."""
        file = str(self.arguments["training_file"])
        there = [job.id for job in jobs if job.training_file == file]
        sent = JobIntent(ignored=ignored, there=there, training_file=file)
        yield Intent("job", dict(sent))
        return sent

    def _place(self, full: FullError) -> Asking[list["FineTuningJob"]]:
        """Wait until fewer jobs are under way than there were, however long it takes; return all there are then.

        Raises `full` where none has been under way twice in turn: then it is no other job's end that makes room.
        """
        jobs = yield from listed(self.service)
        at_first = most = _under_way(jobs)
        if not at_first and self._idle:
            raise full
        self._idle = not at_first
        if at_first:
            yield Note(f"{str(full).partition(';')[0]}; {at_first} jobs are under way: this one waits for its turn")
        yield State("job", WAITS)
        for _ in range(LOOKS_FOR_A_PLACE):
            yield Wait(self.service.polling.every * random.uniform(0.8, 1.2))
            jobs = yield from listed(self.service)
            # Others may send jobs, too: one that ends after that leaves a place all the same.
            most = max(most, _under_way(jobs))
            if _under_way(jobs) < most or not at_first:
                break
        return jobs

    def _create(self, intent: JobIntent) -> Asking["FineTuningJob"]:
        attempt = len(intent["ignored"]) + 1
        arguments = self.arguments | {"metadata": {PLAN_ID: self.plan.id, ATTEMPT: str(attempt)}}

        def create() -> "FineTuningJob":
            # The client is looked up at each attempt: with a new token comes a new one (`Connection.close`).
            make: Callable[..., FineTuningJob] = self.service.openai.fine_tuning.jobs.create
            return make(**arguments)

        return (yield from self.service.create("creating the job", create, lambda: self._look(intent)))

    def _look(self, intent: JobIntent) -> Asking["FineTuningJob | None"]:
        """Return the job that was sent, if the service shows it; it may take a moment to."""
        # A list may lag behind what was created; three looks take some seconds.
        for look in range(1, LOOKS + 1):
            jobs = yield from listed(self.service)
            sent = [job for job in jobs if self._ours(job, intent["ignored"]) or self._new_with_our_file(job, intent)]
            if sent:
                return winner(sent)
            if look < LOOKS:
                yield Wait(self.service.pause(look))
        return None

    def _settle(self, made: str, ignored: Collection[str]) -> Generator[Event, None, str]:
        """Return the job to follow, where another machine has created one at the same moment: the oldest.

        The other is cancelled, by the process that made it.
        """
        jobs = yield from listed(self.service)
        # Ended jobs do not count, but our own may have ended meanwhile.
        alive = [job for job in jobs if self._ours(job, ignored) and (job.status not in ENDED or job.id == made)]
        first = winner(alive)
        if first is None or first.id == made:
            return made
        yield Note(f"another machine created {first.id} for this plan a moment before: {made} is cancelled")
        yield from self.service.ask(
            # Missing is fine: it may never have been shown, or is gone already.
            f"cancelling {made}",
            lambda: self.service.openai.fine_tuning.jobs.cancel(made),
            awaited=("missing",),
        )
        return str(first.id)

    def _ours(self, job: "FineTuningJob", ignored: Collection[str]) -> bool:
        if job.id in ignored:
            return False
        # A suffix of the user's own may be in many plans; with the same data and model it is taken for this one.
        same = all(getattr(job, key) == self.arguments[key] for key in ("model", "training_file"))
        return is_of(job, self.plan.id, str(self.arguments["suffix"]), same)

    def _new_with_our_file(self, job: "FineTuningJob", intent: JobIntent) -> bool:
        anonymous = PLAN_ID not in (job.metadata or {})
        # Without metadata or suffix, a new job with our very file is ours: the file is named by its content.
        return anonymous and job.id not in intent["there"] and job.training_file == intent["training_file"]
