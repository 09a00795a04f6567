"""The operations on fine-tuning jobs."""

from copy import deepcopy
from typing import Any

from tests.emulator import models, orders, places, results, shapes
from tests.emulator.cloud import Cloud
from tests.emulator.course import TERMINAL
from tests.emulator.lists import page
from tests.emulator.messages import Answer, Refusal, Request
from tests.emulator.records import Job, Signal, identifier


def create(cloud: Cloud, request: Request) -> Answer:
    """Take an order; whether its rows suit it is found out only while the job validates them."""
    body = request.json()
    orders.check(cloud, body)
    places.demand_place(
        cloud.limits, [cloud.course(job).stage(cloud.clock.now()).status for job in cloud.jobs.values()]
    )
    job = _new(cloud, body)
    cloud.jobs[job.id] = job
    cloud.created_jobs.append(job)
    if job.rejection is None:
        cloud.engine.start(job, job.created_at)
    headers = {"Location": f"http://{request.headers['host']}{request.path}/{job.id}"} if cloud.lax else {}
    return Answer(201 if cloud.lax else 200, shapes.job(cloud, job), headers)


def _new(cloud: Cloud, body: dict[str, Any]) -> Job:
    training = orders.file(cloud, body.get("training_file"), "training_file")
    validation = orders.file(cloud, body["validation_file"], "validation_file") if "validation_file" in body else None
    method, settings, hyperparameters = orders.method_of(body)
    base = orders.base_of(cloud, body["model"]) or ""
    id = identifier("ft-" if cloud.lax else "ftjob-")
    return Job(
        id=id,
        created_at=cloud.clock.now(),
        model=body["model"],
        base=base,
        method=method,
        settings=settings,
        hyperparameters=hyperparameters,
        training=training,
        validation=validation,
        suffix=body.get("suffix"),
        seed=body.get("seed", 0),
        metadata=body.get("metadata"),
        training_type=body.get("trainingType"),
        fine_tuned_model=_name(cloud, base, id, body.get("suffix")),
        script=deepcopy(cloud.script),
        rejection=orders.rejection(base, method, training, validation),
    )


def _name(cloud: Cloud, base: str, id: str, suffix: str | None) -> str:
    if cloud.lax:
        return f"{models.BASES[base].dated}.{id}" + (f"-{suffix}" if suffix else "")
    return f"ft:{base}:rehearsal:{suffix or ''}:{id[-8:]}"


def listed(cloud: Cloud, request: Request) -> Answer:
    """List the jobs, newest first; `metadata[key]=value` narrows the list."""
    wanted = {key[9:-1]: value for key, value in request.query.items() if key.startswith("metadata[")}
    jobs = [job for job in cloud.jobs.values() if wanted.items() <= (job.metadata or {}).items()]
    items = [shapes.job(cloud, job) for job in reversed(jobs)]
    return Answer(body=page(request, items, 20, 100, ends=False))


def retrieve(cloud: Cloud, request: Request, id: str) -> Answer:
    """Return a job as it is now."""
    return Answer(body=shapes.job(cloud, find(cloud, id)))


def events(cloud: Cloud, request: Request, id: str) -> Answer:
    """List a job's events: strict newest first, lax oldest first."""
    items = shapes.events(cloud, find(cloud, id))
    return Answer(body=page(request, items if cloud.lax else items[::-1], 20, 100, ends=False))


def checkpoints(cloud: Cloud, request: Request, id: str) -> Answer:
    """List a job's checkpoints, newest first."""
    return Answer(body=page(request, shapes.checkpoints(cloud, find(cloud, id)), 10, 100))


def cancel(cloud: Cloud, request: Request, id: str) -> Answer:
    """Cancel a job that has not ended."""
    return _signal(cloud, id, "cancelled", lambda status: status not in TERMINAL)


def pause(cloud: Cloud, request: Request, id: str) -> Answer:
    """Pause a running job."""
    if not cloud.engine.pauses:
        raise Refusal(400, f"Job {id} cannot be paused.", "invalidOperation")
    return _signal(cloud, id, "pause", lambda status: status == "running")


def resume(cloud: Cloud, request: Request, id: str) -> Answer:
    """Let a paused job continue."""
    return _signal(cloud, id, "resume", lambda status: status == "paused")


def _signal(cloud: Cloud, id: str, kind: str, allowed: Any) -> Answer:
    job = find(cloud, id)
    status = cloud.course(job).stage(cloud.clock.now()).status
    if not allowed(status):
        raise Refusal(400, f"Job {id} is {status}; it cannot be asked to '{kind}'.", "invalidOperation")
    cloud.signal(job, kind)
    return Answer(body=shapes.job(cloud, job))


def find(cloud: Cloud, id: str) -> Job:
    """Return a job; refuse the request where there is none."""
    if id not in cloud.jobs:
        raise Refusal(404, f"Could not find fine tune: {id}", "fine_tune_not_found", "fine_tuning_job_id")
    return cloud.jobs[id]


def settle(cloud: Cloud) -> None:
    """Put the results files of jobs that have succeeded since the last look where they can be found."""
    for job in cloud.jobs.values():
        _limit_cost(cloud, job)
        results.settled(cloud, job)


def _limit_cost(cloud: Cloud, job: Job) -> None:
    """Pause a reinforcement job whose cost has reached the limit; once, as after that there is none."""
    if job.script.limit_of_cost is None or job.limited or job.method != "reinforcement":
        return
    course, now = cloud.course(job), cloud.clock.now()
    began = next((stage.time for stage in course.stages if stage.status == "running"), None)
    at = now if began is None else began + job.script.limit_of_cost
    if began is not None and at <= now and course.stage(at).status == "running":
        job.limited = True
        error = {
            "message": "Job paused: training and grading have reached the cost limit of $5000."
        }  # unverified words
        job.signals = sorted([*job.signals, Signal(at, "pause", error)])
