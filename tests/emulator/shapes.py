"""What the service's objects look like on the wire: strict as OpenAI's schema has them, lax as Azure answers."""

import hashlib
from typing import Any

from tests.emulator import results
from tests.emulator.cloud import Cloud
from tests.emulator.course import TERMINAL, Course, Measure, Stage
from tests.emulator.records import File, Job

ORGANIZATION = "org-rehearsal"
# The hyperparameters of every method, which are next to the method's own as well.
COMMON = ("n_epochs", "batch_size", "learning_rate_multiplier")


def file(cloud: Cloud, item: File) -> dict[str, Any]:
    """Return a file; lax files pass through states that the schema does not know."""
    now = cloud.clock.now()
    status = "error" if item.problem else "processed"
    if now < item.ready_at:
        early = now < (item.created_at + item.ready_at) / 2
        status = ("pending" if early else "running") if cloud.lax else "uploaded"
    body = {
        "id": item.id,
        "object": "file",
        "bytes": len(item.content),
        "created_at": int(item.created_at),
        "filename": item.filename,
        "purpose": item.purpose,
        "status": status,
    }
    if status == "error":
        body["status_details"] = item.problem
    return body


def job(cloud: Cloud, item: Job) -> dict[str, Any]:
    """Return a job as it is now."""
    stage = results.settled(cloud, item)
    epochs = cloud.engine.epochs(item)
    body = _lax_job(item, stage, epochs) if cloud.lax else _strict_job(item, stage, epochs)
    if cloud.echo_metadata and item.metadata is not None:
        body["metadata"] = item.metadata
    return body


def _common_job(item: Job, stage: Stage) -> dict[str, Any]:
    shown = _shown(item.hyperparameters)
    method: dict[str, Any] = {"type": item.method, item.method: item.settings | {"hyperparameters": shown}}
    body = {
        "id": item.id,
        "object": "fine_tuning.job",
        "created_at": int(item.created_at),
        "model": item.model,
        "status": stage.status,
        "training_file": item.training.id,
        "hyperparameters": {key: shown[key] for key in COMMON},
        "method": method,
    }
    if item.suffix:
        body["suffix"] = item.suffix
    if item.training_type:
        body["trainingType"] = item.training_type
    if item.method == "reinforcement":
        body["eval_id"] = f"eval_{hashlib.sha256(item.id.encode()).hexdigest()[:32]}"
    return body


def _strict_job(item: Job, stage: Stage, epochs: int) -> dict[str, Any]:
    done, ended = stage.status == "succeeded", stage.status in TERMINAL
    error = stage.error if stage.status == "failed" else None
    return _common_job(item, stage) | {
        "error": error,
        "fine_tuned_model": item.fine_tuned_model if done else None,
        "finished_at": int(stage.time) if ended else None,
        "organization_id": ORGANIZATION,
        "result_files": _result_files(item) if done else [],
        "trained_tokens": _trained_tokens(item, epochs) if done else None,
        "validation_file": item.validation.id if item.validation else None,
        "integrations": [],
        "seed": item.seed,
        "estimated_finish": None,
        "metadata": None,
    }


def _lax_job(item: Job, stage: Stage, epochs: int) -> dict[str, Any]:
    body = _common_job(item, stage)
    if stage.status == "validating_files":
        body["status"] = "pending"
    if item.hyperparameters.get("n_epochs", "auto") == "auto":
        body["hyperparameters"]["n_epochs"] = -1
    if item.validation:
        body["validation_file"] = item.validation.id
    if stage.status in TERMINAL:
        body["finished_at"] = int(stage.time)
    if stage.status == "failed":
        body["error"] = stage.error if stage.error is not None else {}
    if stage.status == "succeeded":
        body["fine_tuned_model"] = item.fine_tuned_model
        body["result_files"] = _result_files(item)
        body["trained_tokens"] = _trained_tokens(item, epochs)
    return body


def _shown(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(COMMON, "auto") | hyperparameters


def _result_files(item: Job) -> list[str]:
    return [item.results.id] if item.results else []


def _trained_tokens(item: Job, epochs: int) -> int:
    """Return the billed tokens: about four bytes each, in every pass over the data."""
    return len(item.training.content) // 4 * epochs


def events(cloud: Cloud, item: Job) -> list[dict[str, Any]]:
    """Return what has happened to a job, oldest first; the ids are the same in every answer."""
    course = cloud.course(item).until(cloud.clock.now())
    moments: list[Stage | Measure] = [*course.stages, *course.measures]
    reported = [(moment.time, _reported(moment, item, course)) for moment in moments]
    reported.insert(0, (item.created_at, {"message": f"Created fine-tuning job: {item.id}"}))
    reported.sort(key=lambda entry: entry[0])
    return [_event(item, number, time, what) for number, (time, what) in enumerate(reported)]


def _event(item: Job, number: int, time: float, what: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(f"{item.id}/{number}".encode()).hexdigest()[:32]
    return {
        "id": f"ftevent-{digest}",
        "object": "fine_tuning.job.event",
        "created_at": int(time),
        "level": "info",
        "type": "message",
        **what,
    }


def _reported(moment: Stage | Measure, item: Job, course: Course) -> dict[str, Any]:
    if isinstance(moment, Measure):
        return _measured(moment.row, course.total)
    reason = (moment.error or {}).get("message", "no reason given")
    messages = {
        "validating_files": f"Validating training file: {item.training.id}",
        "queued": "Files validated, moving job to queued state",
        "running": "Fine-tuning job started",
        "succeeded": "The job has successfully completed",
        "failed": f"The job failed: {reason}",
        "cancelled": "Fine-tuning job cancelled",
        **({"paused": reason} if moment.error else {}),
    }
    message = messages.get(moment.status, f"The job is {moment.status}")
    return {"message": message, "level": "error" if moment.status == "failed" else "info"}


def _measured(row: dict[str, Any], total: int) -> dict[str, Any]:
    words = {"train_loss": "training loss", "valid_loss": "validation loss", "full_valid_loss": "full validation loss",
             "train_mean_reward": "train mean reward", "full_valid_mean_reward": "full validation mean reward",
             "full_valid_mean_parse_error": "full validation mean parse error"}  # fmt: skip
    said = ", ".join(f"{words[key]}={value:.2f}" for key, value in row.items() if key in words)
    step = f"{row['step']}/{total}" if total else row["step"]
    data = row | ({"total_steps": total} if total else {})
    return {"type": "metrics", "message": f"Step {step}: {said}", "data": data}


def checkpoints(cloud: Cloud, item: Job) -> list[dict[str, Any]]:
    """Return the last three epochs' models of a job that has succeeded, newest first."""
    course = cloud.course(item)
    stage = course.stage(cloud.clock.now())
    rows = course.table()
    if stage.status != "succeeded" or not rows:
        return []
    passes = cloud.engine.epochs(item)
    ends = sorted({max(1, round(len(rows) * epoch / passes)) for epoch in range(1, passes + 1)})[-3:]
    return [_checkpoint(cloud, item, int(stage.time), rows[end - 1]) for end in reversed(ends)]


def _checkpoint(cloud: Cloud, item: Job, created_at: int, row: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(f"{item.id}/checkpoint/{row['step']}".encode()).hexdigest()[:24]
    return {
        "id": f"ftckpt_{digest}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": created_at,
        # Azure's names say nothing of the model: ftchkpt-e559c011ecc04fc68eaa339d8227d02d.
        "fine_tuned_model_checkpoint": (
            f"ftchkpt-{digest}" if cloud.lax else f"{item.fine_tuned_model}:ckpt-step-{row['step']}"
        ),
        "fine_tuning_job_id": item.id,
        "metrics": dict(row),
        "step_number": row["step"],
    }
