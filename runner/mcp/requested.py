"""A request as an agent types it: what it may say, its plan as a value, and the price that it has to allow."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner import backends, methods, planning
from runner.errors import RequestError
from runner.execution import execute
from runner.plan import Proposal
from runner.request import check
from runner.request.keys import Request

REFUSED = ("hydra", "mode", "max_price", "rehearse", "sweep", "search")
"""Keys that are not an agent's: Hydra's can start any program, and the others are the tools' own."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What a request would do. `dollars` and `seconds` are null where they are not known."""

    run: str
    """The run's folder: what the other tools call it."""
    plan_id: str
    state: str
    method: str
    backend: str
    model: str
    rows: dict[str, int]
    values: dict[str, str]
    """The resolved keys."""
    reasons: dict[str, str]
    """Why an `auto` has its value, by key."""
    findings: list[str]
    """What is odd in the data or the graders."""
    forecast: list[str]
    dollars: float | None
    seconds: float | None


def proposal(overrides: Sequence[str], dry: bool) -> Proposal:
    """Return the plan of a request; nothing is created or sent, and where it is `dry` no hub is asked.

    Raises `RequestError` for what an agent may not ask for, and whatever a plan raises.
    """
    from runner import api

    for override in overrides:
        _require_harmless(override)
    # Of a model whose revision is not given a run's plan has the one that the hub names, and another folder.
    request = check.request(api.composed(*overrides, f"mode={'plan' if dry else 'run'}"))
    if getattr(request.backend, "trust_remote_code", False):
        raise RequestError("backend.trust_remote_code: lets a model's own code run, which only a person may allow.")
    return planning.make(request)


def _require_harmless(override: str) -> None:
    key = override.partition("=")[0].lstrip("+~")
    if "=" not in override or override.startswith("-"):
        raise RequestError(f"overrides: got {override!r}; each is KEY=VALUE or GROUP=OPTION, as in dpo.beta=0.05.")
    # hydra.run.dir, hydra/launcher and the like are one key to us.
    if re.split(r"[./]", key)[0] in REFUSED:
        raise RequestError(f"overrides: {key} is not set here; leave it out (the tools have arguments of their own).")
    # `${oc.env:NAME}` would bring a secret of this machine into a plan that the agent reads.
    if "${" in override:
        raise RequestError(f"overrides: {key}: interpolations are not taken here; write the value.")
    check.require_no_secret(override)


def planned(found: Proposal) -> Planned:
    """Return a plan as an agent reads it."""
    run, tokens = found.run, planning.count_tokens(found)
    plan, cost = run.plan, planning.total_cost([found])
    graders = [f"grader {each.name}: {warning}" for each in found.rehearsed for warning in each.warnings]
    values: Mapping[str, object] = methods.load(plan.method).shown(plan.hyperparameters)
    return Planned(
        run=str(run.folder),
        plan_id=plan.id,
        state="finished" if execute.finished(run) is not None else "to do",
        method=plan.method,
        backend=plan.backend,
        model=plan.model.source,
        rows={name: split.rows for name, split in plan.splits.items()},
        values={key: str(value) for key, value in values.items()},
        reasons=dict(found.reasons),
        findings=[*(str(group.examples[0]) for group in found.survey.findings), *graders, *found.left_out],
        forecast=[f"{title}: {text}" for title, text in backends.load(plan.backend).forecast(found, tokens)],
        dollars=cost.dollars,
        seconds=cost.seconds,
    )


def require_price(request: Request, dollars: float | None, max_price: float | None) -> None:
    """Raise `RequestError` unless a run that costs something has a limit that it keeps."""
    if max_price is not None and not max_price >= 0:  # NaN is above no price
        raise RequestError(f"max_price: got {max_price:g}; allowed: a number ≥ 0.")
    backend = backends.load(request.backend.name)
    # A judge's price is in the dollars; what is not known may be anything.
    paid = backend.hosted or backend.stops_at_price or dollars != 0
    price = "a price that is not known" if dollars is None else f"about ${dollars:,.2f}"
    if paid and max_price is None:
        raise RequestError(
            f"max_price: missing; this run takes {price} (backend={backend.name}); say the most dollars that it may "
            "cost, as the person who pays has allowed."
        )
    # Such a backend stops by itself before the limit, so that it may start whatever all of it costs.
    if max_price is not None and not backend.stops_at_price and (dollars is None or dollars > max_price):
        fix = "raise it" if dollars is not None else "set the number of epochs, or the judge's prices, to have one"
        raise RequestError(f"max_price: got {max_price:g}, but this run takes {price}; nothing was sent; {fix}.")
