"""Benchmarks: tasks of lm-evaluation-harness, measured for each model, kept task by task, compared row by row.

    harness/KEY.json                               what came of a task for a model; it is not run again
    harness.json                                   each metric of each task with its standard error
    problems.jsonl, answers.jsonl, grades.jsonl    the tasks' rows, as of any evaluation (record/graded.py)

Source: https://github.com/EleutherAI/lm-evaluation-harness, its interface for Python.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from runner.backends import Measurable, Respondent
from runner.errors import RequestError
from runner.evaluation.benchmark import measured
from runner.evaluation.benchmark.measured import Measurement
from runner.record import graded, layout, run_folders
from runner.record.files import safe_name, write_json
from runner.request.keys import Request

HARNESS = "harness"
RESULTS = layout.BENCHMARKS


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """The models to measure by name, of which the others are compared with the first, and the tasks."""

    models: Mapping[str, Measurable]
    tasks: Sequence[str]
    """Names, or paths of YAML files."""
    limit: int | None
    folder: Path


def plan(request: Request, respondents: Mapping[str, Respondent], runs: Path) -> Benchmarks:
    """Return what a request asks of some models, with the folder that it belongs to; nothing is loaded.

    Raises `RequestError` where a package is missing, a model cannot be measured, or a task's file is not there.
    """
    missing = [name for name in ("lm_eval", "tenacity", "accelerate") if find_spec(name) is None]
    if missing:
        raise RequestError(f"harness: needs {missing[0]}, which is not installed; pip install 'runner[harness]'.")
    models: dict[str, Measurable] = {}
    for name, respondent in respondents.items():
        if not isinstance(respondent, Measurable):
            raise RequestError(
                f"harness: {name} cannot be measured by benchmarks; allowed: models that are loaded here, and "
                "endpoint:URL#MODEL."
            )
        models[name] = respondent
    limit = request.evaluation.max_rows
    seen = [HARNESS, [each.identity for each in respondents.values()], list(models), limit]
    folder = run_folders.evaluation(runs, list(models)[-1], seen, "-benchmarks")
    return Benchmarks(models=models, tasks=_tasks(request.harness), limit=limit, folder=folder)


def carry_out(plan: Benchmarks, report: Callable[[str], None]) -> list[Measurement]:
    """Measure what is left, and return all measurements; each is on the disk before the next begins.

    `report` is called with each task that begins. The harness's own log goes to standard error. Raises `RequestError`
    for a task that is not there, or that cannot measure the model, `ServiceError` where an endpoint gives no answers.
    """
    (plan.folder / HARNESS).mkdir(parents=True, exist_ok=True)
    found = []
    for name, respondent in plan.models.items():
        model: Any = None
        for task in plan.tasks:
            path = plan.folder / HARNESS / f"{_key(name, respondent, task, plan.limit)}.json"
            if not path.exists():
                from runner.evaluation.benchmark import tasks

                # The model is loaded once for all of its tasks, and not at all where each was measured before.
                report(f"{name}: {task}")
                with redirect_stdout(sys.stderr):  # so that `--json` prints JSON alone
                    model = model or respondent.harness_model()
                    write_json(path, tasks.measure(name, respondent, model, task, plan.limit))
            # From the disk in either case, so that a measurement made now is the one that a later command reads.
            found.append(msgspec.json.decode(path.read_bytes(), type=Measurement))
    _sum_up(plan, found)
    return found


def _tasks(wanted: Sequence[str]) -> list[str]:
    """Return the names of tasks and the YAML files of own ones, those of folders too."""
    found: list[str] = []
    for each in wanted:
        path = Path(each)
        if path.is_dir():
            # as the harness's own folders have it: what begins with _ is what tasks share
            files = sorted(str(file) for file in path.glob("*.yaml") if not file.name.startswith("_"))
            if not files:
                raise RequestError(f"harness: {each} holds no *.yaml; each task is one such file.")
            found += files
        elif path.suffix in (".yaml", ".yml") and not path.is_file():
            raise RequestError(f"harness: {each} not found; name a task, its YAML file, or a folder of such files.")
        else:
            found.append(each)
    return list(dict.fromkeys(found))


def _key(name: str, respondent: Respondent, task: str, limit: int | None) -> str:
    """Return what a measurement depends on, as a file's name: model, task, limit, the harness's version.

    Of an own task also on every file next to it: its rows and functions often are there.
    """
    path, content = Path(task), sha256()
    if path.suffix in (".yaml", ".yml"):
        for file in sorted(each for each in path.parent.iterdir() if each.is_file()):
            content.update(sha256(file.read_bytes()).digest())
    seen = [name, respondent.identity, task, content.hexdigest(), limit, version("lm_eval")]
    return f"{safe_name(task)}-{sha256(msgspec.json.encode(seen)).hexdigest()[:16]}"


def _sum_up(plan: Benchmarks, found: Sequence[Measurement]) -> None:
    """Write the metrics, and the rows as any evaluation's."""
    metrics = [metric for each in found for metric in each.metrics]
    write_json(plan.folder / RESULTS, {"version": version("lm_eval"), "limit": plan.limit, "results": metrics})
    problems, answers, grades = measured.graded_rows(found)
    graded.write(plan.folder / graded.PROBLEMS, problems)
    graded.write(plan.folder / graded.ANSWERS, answers)
    graded.write(plan.folder / graded.GRADES, grades)
    names = list(dict.fromkeys(each.grader for each in grades))
    metrics_of = {name: dict(_values(name, found)) for name in plan.models}
    identities = {name: each.identity for name, each in plan.models.items()}
    graded.write_evaluation(plan.folder, identities, names, len(problems), metrics_of)


def _values(model: str, found: Sequence[Measurement]) -> Iterator[tuple[str, float]]:
    for each in found:
        if each.model == model:
            yield from ((metric.name, metric.value) for metric in each.metrics)
