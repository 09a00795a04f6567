"""The engine that trains nothing: a job goes as its script says, on the service's clock."""

import math
from functools import partial
from typing import Any, Protocol

from tests.emulator.course import Course, Measure, Stage
from tests.emulator.records import Job

# More steps than this are never made up.
MOST_STEPS = 400


class Engine(Protocol):
    """What trains the jobs and answers for the models; `pauses` says whether jobs can be paused."""

    pauses: bool

    def start(self, job: Job, now: float) -> None:
        """Begin a job."""

    def stop(self, job: Job) -> None:
        """End a job before its time."""

    def course(self, job: Job) -> Course:
        """Return how a job goes, as far as it is known."""

    def epochs(self, job: Job) -> int:
        """Return the passes over the data that a job makes, whatever it was asked for."""

    def answer(self, model: str, messages: list[dict[str, Any]]) -> str:
        """Return a model's answer to a conversation."""


class Scripted:
    """Jobs follow their script; every model answers with its name and the prompt."""

    pauses = True

    def start(self, job: Job, now: float) -> None:
        """Begin a job: nothing to do, the clock moves it."""

    def stop(self, job: Job) -> None:
        """End a job before its time: nothing to do."""

    def course(self, job: Job) -> Course:
        """Return the whole course, future included."""
        return scripted(job)

    def epochs(self, job: Job) -> int:
        """Return what was asked for; what the service makes of `auto` is its own matter, here three."""
        return epochs(job)

    def answer(self, model: str, messages: list[dict[str, Any]]) -> str:
        """Return a text that reports the model and the last turn."""
        return f"[{model}] {messages[-1]['content'] if messages else ''}"


def scripted(job: Job) -> Course:
    """Return the course that a job's script describes; files that do not suit the job fail it while validating."""
    script = job.script
    queued = job.created_at + script.validating_seconds
    if job.rejection is not None:
        return Course((Stage(job.created_at, "validating_files"), Stage(queued, "failed", job.rejection)))
    waits = (Stage(job.created_at, "validating_files"), Stage(queued, "queued"))
    # Without a place to run it waits on; `places.begin` gives it one.
    if job.began is None:
        return Course(waits)
    running = job.began
    end = running + script.running_seconds
    rows = script.steps if script.steps is not None else imagined_steps(job)
    measures = tuple(
        Measure(running + script.running_seconds * number / (len(rows) + 1), {"step": number, **row})
        for number, row in enumerate(rows, 1)
    )
    stages = (*waits, Stage(running, "running"), Stage(end, script.outcome, script.error))
    return Course(stages, measures, len(rows))


def epochs(job: Job) -> int:
    """Return the passes over the data, three for `auto`."""
    asked = job.hyperparameters.get("n_epochs", "auto")
    return 3 if asked in ("auto", -1) else int(asked)


def imagined_steps(job: Job) -> list[dict[str, Any]]:
    """Return a falling loss and what goes with it, one row a step; validation at the end of each epoch."""
    batch = job.hyperparameters.get("batch_size", "auto")
    per_epoch = math.ceil(job.training.rows / (1 if batch in ("auto", -1) else int(batch)))
    total = min(per_epoch * epochs(job), MOST_STEPS)
    make = {"dpo": _preference_row, "reinforcement": partial(_graded_row, job)}.get(job.method, _supervised_row)
    interval = job.hyperparameters.get("eval_interval", "auto") if job.method == "reinforcement" else per_epoch
    every = 5 if interval == "auto" else int(interval)
    rows = []
    for number in range(1, total + 1):
        last = number == total and job.method == "reinforcement"
        validated = job.validation is not None and (number % every == 0 or last)
        rows.append(make(number / total, validated))
    return rows


def _supervised_row(done: float, validated: bool) -> dict[str, Any]:
    loss, accuracy = 1.8 * math.exp(-1.5 * done), 0.6 + 0.3 * done
    row = {"train_loss": round(loss, 5), "train_mean_token_accuracy": round(accuracy, 5)}
    if validated:
        row |= {"valid_loss": round(loss * 1.1, 5), "valid_mean_token_accuracy": round(accuracy * 0.95, 5)}
        row |= {"full_valid_loss": round(loss * 1.12, 5), "full_valid_mean_token_accuracy": round(accuracy * 0.94, 5)}
    return row


def _preference_row(done: float, validated: bool) -> dict[str, Any]:
    margin = 2 * done
    loss, accuracy = math.log1p(math.exp(-margin)), 0.5 + 0.45 * done
    row = {
        "train_loss": round(loss, 5),
        "train_accuracy": round(accuracy, 5),
        "train_reward_chosen": round(margin * 0.3, 5),
        "train_reward_rejected": round(margin * -0.7, 5),
        "train_reward_margin": round(margin, 5),
    }
    if validated:
        row |= {"valid_loss": round(loss * 1.1, 5), "valid_accuracy": round(accuracy * 0.95, 5)}
        row |= {"valid_reward_margin": round(margin * 0.9, 5), "full_valid_loss": round(loss * 1.12, 5)}
    return row


def _graded_row(job: Job, done: float, validated: bool) -> dict[str, Any]:
    """Return what a reinforcement job reports of a step: nested, with a part for each grader of a multi."""
    reward = round(0.2 + 0.6 * done, 5)
    grader = job.settings["grader"]
    parts = grader.get("graders", {})
    scores = [
        {"name": part.get("name", key), "type": part["type"], "train_reward_mean": round(reward + 0.1 * number, 5)}
        for number, (key, part) in enumerate(parts.items())
    ]
    errors = [{"name": grader["name"], "train_invalid_variable_error_mean": 0.0, "train_other_error_count": 0}]
    row: dict[str, Any] = {
        "train_mean_reward": reward,
        "mean_unresponsive_rewards": 0.0,
        "reasoning_tokens_mean": round(300 - 100 * done, 1),
        "completion_tokens_mean": round(40 - 10 * done, 1),
        "scores": {"train_reward_mean": reward, "graders": scores},
        "errors": {"graders": errors},
        "timing": {"step": {"sampling": 60.0, "training": 20.0, "full_iteration": 90.0}},
    }
    if validated:
        held_out = round(reward * 0.9, 5)
        row |= {"full_valid_mean_reward": held_out, "full_valid_mean_parse_error": 0.0}
        row["valid_reasoning_tokens_mean"] = round(320 - 100 * done, 1)
        row["scores"]["valid_reward_mean"] = held_out
        for score in scores:
            score["valid_reward_mean"] = round(score["train_reward_mean"] * 0.9, 5)
    return row
