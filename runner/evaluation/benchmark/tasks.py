"""A task of lm-evaluation-harness run for a model, and the harness's errors as sentences. Imports the harness."""

import logging
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from runner.backends import Measurable
from runner.errors import RequestError, ServiceError
from runner.evaluation.benchmark.measured import Measurement, measurement
from runner.hosted.wording import line

BOOTSTRAP = 1_000
"""Resamples for the standard error of metrics that are no means; the harness's own 100,000 take minutes."""


def measure(name: str, respondent: Measurable, model: Any, task: str, limit: int | None) -> Measurement:
    """Run a task for a model of the harness, and return what came of it.

    Raises `RequestError` for a task that is not there, or cannot measure the model; `ServiceError` where an endpoint
    gives no answers.
    """
    from lm_eval import simple_evaluate

    _show_log(respondent)
    manager = _manager(_folder(task))
    loaded = _loaded(task, manager)
    try:
        found = simple_evaluate(
            model=model, tasks=list(loaded.values()), task_manager=manager, limit=limit, apply_chat_template=True,
            bootstrap_iters=BOOTSTRAP, log_samples=True,
        )  # fmt: skip
    except NotImplementedError as error:
        raise RequestError(
            f"harness: {task} needs the probabilities of given answers, which {name} does not give; choose tasks "
            "whose answers are written (generate_until), or a model that is loaded here."
        ) from error
    except OSError as error:  # requests' and aiohttp's errors, too
        raise ServiceError(f"harness: {name}: {respondent.without_secrets(line(str(error)))}") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("aiohttp", "tenacity", "requests"):
            raise
        raise ServiceError(f"harness: {name}: {respondent.without_secrets(line(str(error)))}") from None
    return measurement(name, found, _prompts(loaded, found))


def _folder(task: str) -> str | None:
    """Return the folder of a YAML file of the user's; None of a name, which means a task of the harness's own."""
    path = Path(task)
    return str(path.parent) if path.suffix in (".yaml", ".yml") else None


@cache
def _manager(folder: str | None) -> Any:
    """Return what knows the tasks of a folder, or the harness's own, whose 13,000 files take 10 s to list."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=[folder] if folder else None, include_defaults=folder is None)


def _loaded(task: str, manager: Any) -> dict[str, Any]:
    """Return the tasks that a name, or a YAML file, means: several where it is a group. Their rows are fetched."""
    if not _folder(task) and task not in manager.all_tasks:
        close = ", ".join(get_close_matches(task, manager.all_tasks, 3)) or "lm-eval ls tasks lists them"
        raise RequestError(f"harness: there is no task {task}; close to it: {close}; or name a YAML file of your own.")
    try:
        loaded = manager.load([task])
    except Exception as error:  # whatever the hub's client, the reader of its files or a task's own code raises
        raise RequestError(
            f"harness: {task} cannot be loaded: {line(str(error))} ({type(error).__name__}); its rows come from the "
            "hub, or from local files by dataset_path: json and dataset_kwargs."
        ) from error
    found: dict[str, Any] = {**loaded.get("groups", {})} or dict(loaded["tasks"])
    return found


def _prompts(loaded: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, dict[int, str]]:
    """Return what the rows of each task ask, without examples and the model's template: the same for all models."""
    prompts: dict[str, dict[int, str]] = {}
    for task in _leaves(loaded):
        samples = found["samples"].get(task.task_name, ())
        prompts[task.task_name] = {int(each["doc_id"]): str(task.doc_to_text(each["doc"])) for each in samples}
    return prompts


def _leaves(loaded: Mapping[str, Any]) -> Iterator[Any]:
    for each in loaded.values():
        yield from each.get_all_tasks() if hasattr(each, "get_all_tasks") else [each]


class _Without(logging.Formatter):
    """Writes records without the secrets of a model's endpoint."""

    def __init__(self, respondent: Measurable) -> None:
        super().__init__("lm-eval: %(message)s")
        self.respondent = respondent

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        return self.respondent.without_secrets(super().format(record))


def _show_log(respondent: Measurable) -> None:
    """Show the harness's own log on standard error, without secrets, until the process ends.

    asyncio's, too: it logs a request that failed with all its headers, the key among them, and does so late, when
    the memory is cleared.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Without(respondent))
    for name, level in (("lm_eval", logging.INFO), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
