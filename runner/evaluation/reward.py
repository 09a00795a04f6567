"""The grader whose score is the reward of a method: found by its name, and tried on the rows of training.

A row without a value that the grader names has the reward 0 at a hosted service, hour after paid hour; here it is named
by file and line before anything is sent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from runner import backends, graders, methods
from runner.data.kinds.problem import Problem
from runner.data.splits import Selection, row_blocks, splits_of
from runner.errors import RequestError
from runner.evaluation import configured
from runner.evaluation.rehearsal.rehearsed import Rehearsed
from runner.evaluation.rehearsal.tried import try_out
from runner.graders import Grader
from runner.record.samples import asked
from runner.request.keys import Evaluation, Request

if TYPE_CHECKING:
    from runner.plan import Run

TEMPERATURE = 1.0
"""At which policies are sampled in training where nothing else is said."""


def with_grader(request: Request) -> Request:
    """Return the request of a method that is graded with the grader's configuration in place of its name.

    Raises `RequestError` where the backend does not grade, or the grader is not found, cannot work, or has a secret
    that is written down, which a resumed run would lack.
    """
    method = methods.load(request.method)
    if not method.graded:
        return request
    if not backends.load(request.backend.name).grades:
        able = " or ".join(f"backend={name}" for name in backends.names() if backends.load(name).grades)
        raise RequestError(
            f"method: got {method.name}, which learns from answers that are sampled and graded while it trains; "
            f"backend={request.backend.name} does not do so; use {able}."
        )
    key = f"{method.name}.grader"
    configuration = graders.configuration(configured.one(request.hyperparameters.grader, key))
    for place in graders.written_secrets(configuration):
        raise RequestError(f"{key}: {place}: a secret is written down; fix: $NAME, and set that variable, or in .env.")
    # The configuration, not the name: the plan then changes with the grader's file, and is the same elsewhere.
    return replace(request, hyperparameters=replace(request.hyperparameters, grader=configuration))


def grader_of(request: Request) -> Grader:
    """Return the grader of a request whose method is graded, as planning has put it there."""
    return graders.make(request.hyperparameters.grader, f"{request.method}.grader")


def graders_of(run: "Run") -> list[Grader]:
    """Return the graders of a run that look at one answer: that of its reward, if it has one, and its others."""
    others = [each for each in configured.of_request(run.request) if not each.compares]
    if not methods.load(run.plan.method).graded:
        return others
    own = grader_of(run.request)
    # The same grader may be named for the evaluation, too.
    return [own, *(each for each in others if each.name != own.name)]


def evaluation_keys(run: "Run") -> Evaluation:
    """Return how the base model is asked before training: as the policy is sampled, where the method says how."""
    keys = replace(run.request.evaluation, temperature=TEMPERATURE, top_p=1.0)
    if not methods.load(run.plan.method).graded:
        return keys
    own = {"max_new_tokens": run.hyperparameters.max_new_tokens, "temperature": run.hyperparameters.temperature}
    # A service says neither.
    return replace(keys, **{key: value for key, value in own.items() if value != "auto"})


def rehearsed(run: "Run") -> Sequence[Rehearsed]:
    """Return what became of the grader of a run on the rows that it is trained and evaluated on.

    Raises `DataError` with file and line for a row without a field that the grader names.
    """
    return try_out(asked(_placed(run.selection), None, by_prompt=False), [grader_of(run.request)])


def _placed(selection: Selection) -> Iterator[tuple[Problem, str]]:
    """Yield the rows of all splits, each with its file and line."""
    for _, block in row_blocks(selection, splits_of(selection), lambda finding: None):
        for row, line in zip(block.rows, block.lines, strict=True):
            problem = Problem.of(row)
            assert problem is not None
            yield problem, f"{block.file.name}:{line}"
