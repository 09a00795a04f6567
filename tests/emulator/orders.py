"""What a job may be asked for: each rule of the service, and its refusal in the service's words."""

import re
from typing import Any

from tests.emulator import files, grading, models, shapes
from tests.emulator.cloud import Cloud
from tests.emulator.messages import Refusal
from tests.emulator.records import File, Job
from tests.emulator.rows import FEWEST_ROWS, with_images

KNOWN = {"model", "training_file", "validation_file", "seed", "suffix", "metadata", "method", "hyperparameters",
         "integrations", "trainingType"}  # fmt: skip
HYPERPARAMETERS = {
    "supervised": ("n_epochs", "batch_size", "learning_rate_multiplier"),
    "dpo": ("n_epochs", "batch_size", "learning_rate_multiplier", "beta"),
    "reinforcement": ("n_epochs", "batch_size", "learning_rate_multiplier", "eval_interval", "eval_samples",
                      "compute_multiplier", "reasoning_effort"),
}  # fmt: skip
EFFORTS = ("default", "low", "medium", "high")
WHOLE = ("n_epochs", "batch_size", "eval_interval", "eval_samples")
MOST = {"n_epochs": 50, "batch_size": 256, "beta": 2}
KINDS = {"supervised": "chat", "dpo": "dpo", "reinforcement": "reinforcement"}


def check(cloud: Cloud, body: Any) -> None:
    """Refuse an order that breaks a rule; files are looked at in `file`, rows only while the job validates them."""
    if not isinstance(body, dict):
        raise _bad("The request body must be an object.")
    for key, value in body.items():
        if key not in KNOWN:
            raise _bad(f"Unrecognized request argument supplied: {key}", key)
        if value is None:
            raise _bad(f"The value for '{key}' must not be null.", key)
    _check_model(cloud, body)
    _check_hyperparameters(body)
    if body.get("method", {}).get("type") == "reinforcement":
        _check_reinforcement(body)
    suffix = body.get("suffix", "")
    if not isinstance(suffix, str) or not re.fullmatch(r"[A-Za-z0-9_-]{0,18}", suffix):
        raise _bad(f"'{suffix}' is not a suffix: up to 18 letters, digits, '-' and '_' are allowed.", "suffix")
    if not isinstance(body.get("seed", 0), int):
        raise _bad("The seed must be an integer.", "seed")
    _check_training_type(cloud, body)
    _check_metadata(body.get("metadata", {}))


def base_of(cloud: Cloud, model: str) -> str | None:
    """Return the base of a model that can be tuned: a base model, or one that a job here has made."""
    made = maker(cloud, model)
    return made[0].base if made else models.base_of(model)


def maker(cloud: Cloud, model: str) -> tuple[Job, int | None] | None:
    """Return the job that has made a model, and the step if it is one of its checkpoints."""
    for job in cloud.jobs.values():
        if cloud.course(job).stage(cloud.clock.now()).status != "succeeded":
            continue
        if model == job.fine_tuned_model:
            return job, None
        for each in shapes.checkpoints(cloud, job):
            if model == each["fine_tuned_model_checkpoint"]:
                return job, int(each["step_number"])
    return None


def file(cloud: Cloud, id: Any, param: str) -> File:
    """Return a file that a job is to read; refuse one that is missing, not for training, or not ready."""
    if not isinstance(id, str) or id not in cloud.files:
        raise _bad(f"{param}: file '{id}' does not exist.", param)
    found = files.find(cloud, id)
    if found.purpose != "fine-tune":
        raise _bad(f"File '{id}' has purpose '{found.purpose}'; 'fine-tune' is required.", param)
    if cloud.clock.now() < found.ready_at:
        raise _bad(f"File '{id}' is still being processed and is not ready to be used for fine-tuning.", param)
    if found.problem:
        raise _bad(f"File '{id}' is invalid: {found.problem}", param)
    return found


def rejection(base: str, method: str, training: File, validation: File | None) -> dict[str, Any] | None:
    """Return the error with which the job fails while it validates its files, None where they suit it."""
    for param, item in (("training_file", training), ("validation_file", validation)):
        if item is not None and item.kind != KINDS[method]:
            message = f"The file has rows of format '{item.kind}', method '{method}' needs '{KINDS[method]}'."
            return {"code": "invalid_file_format", "message": message, "param": param}
        # As reported of reinforcement jobs: https://community.openai.com/t/1357459
        if item is not None and method not in models.BASES[base].sees and with_images(item.content):
            message = f"Invalid file format. Input file {item.id} contains images, but the method `{method}` does not "
            return {"code": "invalid_file_format", "message": f"{message}support it.", "param": param}
    if training.rows < FEWEST_ROWS:
        message = f"Training file has {training.rows} example(s), but must have at least {FEWEST_ROWS} examples"
        return {"code": "invalid_n_examples", "message": message, "param": "training_file"}
    return None


def method_of(body: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return an order's method, its settings and its hyperparameters."""
    asked = body.get("method", {"type": "supervised"})
    kind = asked["type"]
    settings = dict(asked.get(kind, {}))
    hyperparameters = settings.pop("hyperparameters", body.get("hyperparameters", {}))
    return kind, settings, hyperparameters


def _check_model(cloud: Cloud, body: dict[str, Any]) -> None:
    base = base_of(cloud, str(body.get("model")))
    method = body.get("method", {"type": "supervised"})
    if not isinstance(method, dict) or method.get("type") not in list(HYPERPARAMETERS):
        raise _bad(f"method.type must be one of {', '.join(HYPERPARAMETERS)}.", "method")
    settings = method.get(method["type"], {})
    if not isinstance(settings, dict) or not isinstance(settings.get("hyperparameters", {}), dict):
        raise _bad(f"method.{method['type']} must be an object with an object 'hyperparameters'.", "method")
    if base is None:
        raise _bad(f"The specified base model does not exist: {body.get('model')}", "model", "invalidModel")
    if method["type"] not in models.BASES[base].methods:
        message = f"Model {body['model']} is not available for fine-tuning by method '{method['type']}'."
        raise _bad(message, "model", "model_not_available")


def _check_hyperparameters(body: dict[str, Any]) -> None:
    method, _, found = method_of(body)
    for key, value in found.items():
        where = f"method.{method}.hyperparameters.{key}"
        if key not in HYPERPARAMETERS[method]:
            raise _bad(f"Unknown hyperparameter '{key}' for method '{method}'.", where)
        if key == "reasoning_effort" and value not in EFFORTS:
            raise _bad(f"Invalid value for '{key}': {value!r}; one of {', '.join(EFFORTS)} is expected.", where)
        if value != "auto" and key != "reasoning_effort" and not _fits(key, value):
            limit = f" up to {MOST[key]}" if key in MOST else ""
            raise _bad(f"Invalid value for '{key}': {value!r}; a number > 0{limit} or 'auto' is expected.", where)


def _check_reinforcement(body: dict[str, Any]) -> None:
    if "validation_file" not in body:
        raise _bad("validation_file is required for reinforcement fine-tuning.", "validation_file")
    settings = body["method"].get("reinforcement", {})
    grading.check(settings.get("grader"), "method.reinforcement.grader")
    form = settings.get("response_format", {"type": "json_schema", "json_schema": {"name": "none", "schema": {}}})
    nested = form.get("json_schema") if isinstance(form, dict) else None
    if not isinstance(nested, dict) or not {"name", "schema"} <= nested.keys() or form.get("type") != "json_schema":
        where = "method.reinforcement.response_format"
        raise _bad(f"{where} must have type 'json_schema' and an object 'json_schema' with 'name' and 'schema'.", where)


def _check_training_type(cloud: Cloud, body: dict[str, Any]) -> None:
    base = models.BASES[base_of(cloud, str(body["model"])) or ""]
    asked = body.get("trainingType")
    if asked is None and base.named:
        raise _bad(f"Model {body['model']} has no default trainingType; it must be given.", "trainingType")
    if asked is None:
        return
    known = models.training_type(str(asked))
    if known is None:
        # So misleading was the real service's answer to "Developer".
        raise _bad("The fineTuningJob field is required.")
    if known not in base.training_types:
        message = f"The specified model '{body['model']}' does not support fine-tuning with {asked} TrainingType."
        raise _bad(message, "trainingType")


def _fits(key: str, value: Any) -> bool:
    kind = int if key in WHOLE else int | float
    return isinstance(value, kind) and not isinstance(value, bool) and 0 < value <= MOST.get(key, value)


def _check_metadata(found: Any) -> None:
    fits = isinstance(found, dict) and len(found) <= 16
    if not fits or not all(isinstance(text, str) for item in found.items() for text in item):
        raise _bad("metadata must be an object of at most 16 pairs of text.", "metadata")
    if any(len(key) > 64 or len(value) > 512 for key, value in found.items()):
        raise _bad("metadata: keys have at most 64 characters, values at most 512.", "metadata")


def _bad(message: str, param: str | None = None, code: str = "invalidPayload") -> Refusal:
    return Refusal(400, message, code, param)
