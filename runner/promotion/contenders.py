"""The run that is to be promoted, and what it has to be better than: the run that has the alias, or the base model."""

from dataclasses import dataclass
from pathlib import Path

from runner import planning
from runner.compare import results
from runner.compare.results import TUNED, Result
from runner.errors import RequestError
from runner.models import model_reference
from runner.models.source import ModelIdentity
from runner.plan import Run
from runner.record import graded, layout

BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model with what is known of it; `model` is what the folder's answers call it."""

    called: str
    result: Result
    model: str
    base: ModelIdentity

    @property
    def folder(self) -> Path:
        """Where its answers are."""
        return self.result.folder


def of_run(run: Run, called: str) -> Contender:
    """Return a run's tuned model. Raises `RequestError` where the run has not finished."""
    result = results.read(run.folder)
    if result.status != "finished":
        raise RequestError(f"{run.folder}: is {result.status}; give its command again, then promote what it has made.")
    return Contender(called=called, result=result, model=TUNED, base=_root(run))


def base_of(run: Run) -> list[Contender]:
    """Return a run's tuned and its base model, by their graded answers to the same prompts.

    Raises `RequestError` where they were not graded.
    """
    if not graded.read(run.folder / graded.GRADES, graded.AnswerGrade):
        raise RequestError(
            f"{run.folder}: nothing has this alias yet, so the model is compared with its base model, and no answer of "
            "either was graded; give the run's command again with evaluation.graders=[NAME]: nothing is trained again."
        )
    # A hosted run may have no answers of its base model, where no deployment of it was found.
    found = {each.model: each for each in results.read_models(run.folder)}
    if BASE not in found or TUNED not in found:
        raise RequestError(
            f"{run.folder}: nothing has this alias yet, and the base model was not asked, so there is nothing to "
            "compare with; deploy it (backend.deployment.base), or ask both with python -m runner.evaluate."
        )
    # As a reader knows them: the folder's own words for its models say nothing elsewhere.
    called = {TUNED: run.folder.name, BASE: "the base model"}
    return [Contender(called=called[each], result=found[each], model=each, base=_root(run)) for each in (TUNED, BASE)]


def _root(run: Run) -> ModelIdentity:
    """Return the model at the bottom: that of the reference, where the run started from another run's result."""
    found = model_reference.read(run.folder / layout.MODEL)
    return found.base if found else run.plan.model


def load(folder: Path, called: str) -> Contender:
    """Return the model of a run's folder, or of a copy of it."""
    return of_run(planning.load(folder), called)
