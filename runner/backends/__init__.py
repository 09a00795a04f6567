"""What a backend is: a place that turns a plan into a tuned model, step by step. One package a backend.

A backend's `__init__` is light: its keys (a dataclass) and `BACKEND`. What it needs to work (torch, the
hosted service's client) is imported inside its steps. A backend knows neither Hydra nor MLflow nor the
terminal: it yields events and returns JSON.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from runner.cost import Cost
from runner.methods import Method
from runner.record.events import Event

if TYPE_CHECKING:
    from runner.cost import Tokens
    from runner.data.survey import Survey, TokenLimit
    from runner.plan import Proposal, Run
    from runner.record.journal import RunState
    from runner.request.keys import Evaluation, Request

Resolved = tuple[Any, Any, Mapping[str, str]]
"""Settings and hyperparameters without `auto`, and the reason for each value chosen, by key."""

Events = Generator[Event, None, dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """One stretch of work: `run()` yields events and returns a small JSON result, which the journal keeps.

    A step is done when the journal holds its result under the same `key`; the key names what the step
    depends on beyond the plan, so that asking for other samples does not train again.
    """

    name: str
    run: Callable[[], Events]
    key: str = ""


@dataclass(frozen=True)
class Backend:
    """A backend as the rest of the runner sees it.

    `settings` is the dataclass of the keys under `backend`. `check(request, survey)` raises `RequestError` or
    `DataError` for what the backend cannot do. `limit(request)` is the most tokens a row may have, where that is known.
    `resolve(settings, method, hyperparameters, num_rows)` replaces each `auto` that the runner decides, with the
    reasons by full key. `identity(settings)` is the part of them that decides the result, `evaluation(wanted)` that of
    the keys under `evaluation`. `cost(run, tokens)` is what is left of the run to pay for and to wait for, and
    `outlook(proposal, tokens)` says what the run will take, in rows of name and text, where `tokens` are those of each
    split, if they can be counted. `steps(run, state)` lists the work, where `state` holds what the journal
    knows, and goes on to hold it while the steps run. `advice(run, results)` are lines on what to do next, command and
    purpose. `hosted` says that a service does the work, as a job whose id the step `create` returns as `job`.
    """

    name: str
    settings: type
    check: Callable[["Request", "Survey"], None]
    limit: Callable[["Request"], "TokenLimit | None"]
    resolve: Callable[[Any, Method, Any, int], Resolved]
    identity: Callable[[Any], dict[str, Any]]
    evaluation: Callable[["Evaluation"], dict[str, Any]]
    cost: Callable[["Run", "Tokens | None"], Cost]
    outlook: Callable[["Proposal", "Tokens | None"], Sequence[tuple[str, str]]]
    steps: Callable[["Run", "RunState"], Sequence[Step]]
    advice: Callable[["Run", Mapping[str, dict[str, Any]]], Sequence[tuple[str, str]]]
    hosted: bool = False


def load(name: str) -> Backend:
    """Return the backend of that name; `name` comes from a checked request."""
    backend: Backend = import_module(f"runner.backends.{name}").BACKEND
    return backend
