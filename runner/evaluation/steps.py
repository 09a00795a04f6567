"""The step `grade`, which every run has after its answers where graders are configured, whatever its backend.

grade    the answers of both models, by each grader        grades.jsonl
"""

from collections.abc import Sequence

from runner import backends
from runner.backends import Events, Step
from runner.evaluation import configured, judges, summary
from runner.evaluation.lockstep import in_lockstep
from runner.plan import Run
from runner.record import graded
from runner.record.events import Metrics
from runner.record.graded import Answer, Asked
from runner.record.journal import RunState


def of(run: Run, state: RunState) -> Sequence[Step]:
    """Return all steps of a run: those of its backend, and `grade` where they sample answers and graders are named."""
    steps = backends.of(run).steps(run, state)
    sampling = next((step for step in steps if step.name == "sample"), None)
    graders = configured.of_request(run.request)
    if sampling is None or not graders:
        return steps
    # Other graders grade again and sample nothing; other samples do both.
    key = " ".join([sampling.key, *(f"{each.name}={configured.key_of(each)}" for each in graders)])
    return [*steps, Step("grade", lambda: in_lockstep(_grade(run, state)), key)]


def _grade(run: Run, state: RunState) -> Events:
    """Grade the answers that the run's folder holds."""
    rows = graded.read(run.folder / graded.PROBLEMS, Asked)
    answers = graded.read(run.folder / graded.ANSWERS, Answer)
    graders = configured.of_request(run.request)
    grades = yield from judges.grade_all(run.folder, rows, answers, graders, run.request.evaluation.judge)
    found = summary.metrics(grades, graders, rows)
    yield Metrics(_last_step(state), found)
    return {"num_graded": len(grades), **found}


def _last_step(state: RunState) -> int:
    """Return how many optimizer steps the model has behind it."""
    # The local backend trains in a step of that name; a hosted job's results say how far it came.
    found = (state.results.get(name, {}).get("step") for name in ("train", "results"))
    return next((step for step in found if isinstance(step, int)), 0)
