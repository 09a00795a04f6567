"""The judge of a request: the endpoint that graders ask."""

from collections.abc import Sequence

from runner.graders import Grader, Judge
from runner.request.keys import Request


def judge_of(request: Request, graders: Sequence[Grader]) -> Judge | None:
    """Return what graders ask; None where none of them asks a model."""
    return None
