"""A grader as a hosted reinforcement job takes it: what is sent of it, and what such a job refuses.

Graders go as plain dicts: the SDK's types know neither `pass_threshold` nor more than one grader in a `multi`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from runner import graders, methods
from runner.graders import Grader
from runner.hosted import methods as wire_forms
from runner.request.keys import Request

if TYPE_CHECKING:
    from runner.plan import Run

FEWEST_PARTS = 2
"""Of a multi; with one the service takes `graders` for a grader itself."""


def grader_of(request: Request) -> Grader:
    """Return the grader of a request whose method is graded, as planning has put it there."""
    return graders.make(request.hyperparameters.grader, f"{request.method}.grader")


def method_extras(run: "Run") -> dict[str, Any]:
    """Return the keys next to the hyperparameters of a run's job: the grader of a graded method, and others.

    Raises `AccessError` where the variable of a secret is not set.
    """
    keys = {key: run.plan.hyperparameters[key] for key in wire_forms.load(run.plan.method).extra_keys}
    if methods.load(run.plan.method).graded:
        # The request's, not the plan's: the plan does not say where its secrets are.
        keys["grader"] = wire(grader_of(run.request))
    return {key: value for key, value in keys.items() if value is not None}


def described(grader: Grader) -> dict[str, Any]:
    """Return the service's JSON of a grader: without the fields that are ours, each part with a name; `$NAME` stays."""
    kept = {key: value for key, value in graders.configuration(grader).items() if key not in grader.own_fields}
    parts = {key: {"name": key} | described(part) for key, part in grader.parts.items()}
    return kept | ({"graders": parts} if parts else {})


def wire(grader: Grader) -> dict[str, Any]:
    """Return what is sent of a grader: the service's JSON with secrets in place of their names.

    Raises `AccessError` where the variable of a secret is not set.
    """
    found = described(grader)
    for field in grader.secrets:
        if secrets := {name: secret.reveal() for name, secret in getattr(grader, field).items()}:
            found[field] = secrets
    for key, part in grader.parts.items():
        found["graders"][key] |= wire(part)
    return found


def refusals(grader: Grader, place: str) -> Iterator[str]:
    """Yield a sentence for each thing in a grader that a hosted job refuses; `place` is the key that names it."""
    if not grader.hosted:
        yield (
            f"{place}: got type {grader.type}, which hosted reinforcement jobs do not know; allowed: "
            f"{', '.join(graders.hosted_types())}; a python grader can compute much of the rest."
        )
    if 0 < len(grader.parts) < FEWEST_PARTS:
        yield f"{place}.graders: got one grader; hosted jobs take {FEWEST_PARTS} or more in a multi; name it alone."
    for key, part in grader.parts.items():
        yield from refusals(part, f"{place}.graders.{key}")


def not_sent(grader: Grader, place: str) -> Iterator[str]:
    """Yield the fields that are set and not sent, as only we know them."""
    configured = graders.configuration(grader)
    yield from (f"{place}.{field}" for field in grader.own_fields if field in configured)
    for key, part in grader.parts.items():
        yield from not_sent(part, f"{place}.graders.{key}")
