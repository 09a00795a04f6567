"""What a backend is: a place that turns a plan into a tuned model, step by step. One package per backend.

A new backend is a package here and a YAML file in `conf/backend/`: the package itself ends with `KEYS = …`, the keys of
its settings, its module `backend` with `BACKEND = …`. Only what a plan needs is imported with that; torch or the client
of a service is imported by its steps. A backend knows neither Hydra nor MLflow nor the terminal: it yields events and
returns JSON.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from runner.cost import Cost
from runner.data.rows import Prompt
from runner.graders import Json
from runner.methods import AnyMethod, Hyperparameters
from runner.record.events import Created, Event
from runner.record.events import Result as Result

if TYPE_CHECKING:
    from runner.cost import Tokens
    from runner.data.quality.vision import Vision
    from runner.data.survey import Survey, TokenLimit
    from runner.plan import Proposal, Run
    from runner.record.journal import RunState
    from runner.record.samples import Reply, Sampling
    from runner.request.keys import BackendKeys, Request

Settings = TypeVar("Settings", bound="BackendKeys")
Events = Generator[Event, None, Result]
Lines = Sequence[tuple[str, str]]
"""Rows of two texts for the terminal: a name or a command, and what it is."""


@dataclass(frozen=True)
class Step:
    """One stretch of work: `run()` yields events and returns a small JSON result, which the journal keeps.

    A step is done when the journal holds its result under the same `key`; the key names what the step depends on
    beyond the plan, so that asking for other samples does not train again.
    """

    name: str
    run: Callable[[], Events]
    key: str = ""


class Resolved(NamedTuple, Generic[Settings]):
    """Settings and hyperparameters without `auto`, and the reason for each value chosen, by full key."""

    settings: Settings
    hyperparameters: Hyperparameters
    reasons: Mapping[str, str]


class Respondent(Protocol):
    """A model that answers prompts. It is loaded, or its service is met, when it is first asked."""

    @property
    def identity(self) -> str:
        """What decides its answers besides prompt and sampling: the digest of its weights, or its place and name."""

    def replies(self, prompts: Sequence[Prompt], sampling: "Sampling") -> Iterable[Sequence["Reply"]]:
        """Yield the answers to each prompt in turn, `sampling.per_prompt` of them; a list, if computed together."""

    def close(self) -> None:
        """Let go of what is held, such as a model in memory; it is loaded again where it is asked again."""


@runtime_checkable
class Measurable(Respondent, Protocol):
    """A respondent that benchmarks can measure, too: an optional capability."""

    def harness_model(self) -> Any:
        """Return the model as an `lm_eval.api.model.LM`, loaded or ready to be asked."""

    def without_secrets(self, text: str) -> str:
        """Return a text of the harness without what nobody may read: the key of an endpoint."""


@runtime_checkable
class Undeployed(Respondent, Protocol):
    """A hosted model that is not deployed, so that it does not answer by itself: an optional capability."""

    @property
    def missing(self) -> str:
        """Say, in a sentence with the fix, that it is not deployed."""

    def for_evaluation(self, settings: Any) -> Respondent:
        """Return it as it is deployed for the time of an evaluation, until it is closed.

        Raises `ModelError` where the backend's settings do not ask for that.
        """


@dataclass(frozen=True)
class RemoteJob:
    """A job at a hosted service, as `python -m runner.jobs` lists it; `plan_id` is empty if it is not ours."""

    id: str
    state: str
    created_at: float
    model: str
    plan_id: str = ""


class Backend(ABC, Generic[Settings]):
    """A backend as the rest of the runner sees it."""

    name: str
    """The backend, as in `backend=NAME`."""
    settings: type[Settings]
    """The dataclass of the keys under `backend`."""
    # Asked in place of a backend's name: a second hosted service is treated alike without a change elsewhere.
    hosted: ClassVar[bool] = False
    """Whether a service does the work, as a job whose id the step `create` returns as `job`."""
    grades: ClassVar[bool] = False
    """Whether answers are sampled and graded while it trains, as a method that is `graded` needs."""

    stops_at_price: ClassVar[bool] = False
    """Whether a run stops by itself before `max_price` is passed, so that it may start whatever all of it costs."""

    @abstractmethod
    def check(self, request: "Request", survey: "Survey") -> None:
        """Raise `RequestError` or `DataError` for what the backend cannot do; called before anything is made."""

    @abstractmethod
    def limit(self, request: "Request") -> "TokenLimit | None":
        """Return the most tokens that a row may have; None if that is not known."""

    @abstractmethod
    def resolve(
        self, settings: Settings, method: AnyMethod, hyperparameters: Hyperparameters, num_rows: int
    ) -> Resolved[Settings]:
        """Replace each `auto` that the runner decides.

        Raises `RequestError` for hyperparameters that the backend does not take.
        """

    @abstractmethod
    def identity(self, settings: Settings) -> dict[str, Json]:
        """Return the part of the settings that decides the result; it is part of the plan id."""

    def evaluation(self, request: "Request") -> dict[str, Json]:
        """Return the part of the keys under `evaluation` that decides the result; it is part of the plan id."""
        return {}

    @abstractmethod
    def cost(self, run: "Run", tokens: "Tokens | None") -> Cost:
        """Return what is left of a run to pay and to wait for; `tokens` is None if they cannot be counted."""

    @abstractmethod
    def forecast(self, proposal: "Proposal", tokens: "Tokens | None") -> Lines:
        """Say what a run will take, as rows of name and text for the plan."""

    @abstractmethod
    def steps(self, run: "Run", state: "RunState") -> Sequence[Step]:
        """Return the steps of a run. `state` is what the journal holds, and is kept up to date while they execute."""

    @abstractmethod
    def advice(self, run: "Run", results: Mapping[str, Result]) -> Lines:
        """Return what a person may do next, as rows of command and purpose."""

    # Lazy: whoever wants the names must not wait for weights to be loaded.
    @abstractmethod
    def respondents(self, run: "Run", state: "RunState") -> Mapping[str, Respondent]:
        """Return the models of a run that can be asked: `base`, if it can, `tuned`, and checkpoints by their step.

        One that would have to be deployed first is `Undeployed`. Raises `ModelError` if the run has no model.
        """

    def respondent(self, reference: str, settings: Settings) -> Respondent | None:
        """Return the model that a reference `SCHEME:REST` names; None where the backend knows no such scheme.

        Raises `ModelError` where there is no such model.
        """
        return None

    def to_its_end(self, run: "Run") -> "Run | None":
        """Return the run as `runner.watch` executes it, which stays until the job has ended; None if it has no job."""
        return None

    def jobs(self, settings: Settings) -> "Jobs":
        """Return the jobs of the service; only asked of a hosted backend."""
        raise NotImplementedError

    def leftovers(self, state: "RunState") -> Sequence[Created]:
        """Return what a run has created at the service that costs or takes room, in the order to remove it."""
        return ()

    def remove(self, run: "Run", state: "RunState", leftovers: Sequence[Created]) -> Iterable["Removal"]:
        """Remove leftovers one by one and yield what became of each; nothing else is ever touched."""
        return ()


class StableDeployment(Protocol):
    """A deployment that callers use by its name, whichever model it answers with."""

    def answer_with(self, model: str, instead_of: Collection[str]) -> Generator[Event, None, None]:
        """Have it answer with a model, and wait until it does: made where there is none, moved from `instead_of`.

        Raises `RequestError` where something else has that name.
        """

    def remove(self) -> Generator[Event, None, None]:
        """Remove it, if it exists; the models stay."""


@runtime_checkable
class Deploys(Protocol):
    """A backend whose models answer by deployments: an optional capability."""

    def stable_deployment(self, run: "Run", name: str) -> StableDeployment:
        """Return the deployment of that name, at the run's service."""


@dataclass(frozen=True)
class Removal:
    """What became of a leftover: removed, which undoes the result of a step, or kept for what still uses it."""

    created: Created
    undoes: str = ""
    used_by: str = ""


class Jobs(Protocol):
    """The jobs of a hosted service, as `python -m runner.jobs` lists and changes them."""

    endpoint: str
    """Where the service is."""

    def list(self) -> Sequence[RemoteJob]:
        """Return all jobs of the service, newest first."""

    def change(self, verb: str, job: str) -> str:
        """Cancel, pause or resume a job; return its state."""


@runtime_checkable
class Copying(Jobs, Protocol):
    """The jobs of a service that copies their checkpoints to another region: an optional capability."""

    def copy(self, job: str, checkpoint: str, resource: str, region: str) -> str:
        """Have a checkpoint copied, unless it is being or has been; return the state of the copy."""


@runtime_checkable
class Sees(Protocol):
    """A backend that has models which see images: an optional capability; others refuse rows that hold some."""

    def vision(self, request: "Request") -> "Vision":
        """Return what the model of a request makes of images."""


AnyBackend = Backend[Any]


def names() -> list[str]:
    """Return the name of every backend."""
    return [module.name for module in iter_modules(__path__)]


@cache
def load(name: str) -> AnyBackend:
    """Return the backend of that name; `name` comes from a checked request."""
    # By name and late: a plan for one backend never imports what another one needs.
    backend: AnyBackend = import_module(f"runner.backends.{name}.backend").BACKEND
    return backend


def keys(name: str) -> "type[BackendKeys]":
    """Return the dataclass of the keys under `backend` for the backend of that name."""
    # Apart from the backend: `--cfg job` asks for all keys, and would take a tenth longer with what plans need.
    found: type[BackendKeys] = import_module(f"runner.backends.{name}").KEYS
    return found


def vision(request: "Request") -> "Vision":
    """Return what the model of a request makes of rows with images."""
    from runner.data.quality.vision import TextAlone

    # Refused by default: a backend that says nothing of images would learn from the texts alone, without a word.
    backend = load(request.backend.name)
    return backend.vision(request) if isinstance(backend, Sees) else TextAlone(backend.name)


def of(run: "Run") -> AnyBackend:
    """Return the backend of a run."""
    return load(run.plan.backend)


# `work` is cached by whoever gives it: the steps of a backend share a model, and none is loaded for a finished run.
def step_of(work: Callable[[], object], name: str, key: str = "") -> Step:
    """Return the step that a method of the backend's steps does; `work` makes them, once, when the first begins."""
    # Only now: torch, or a service's SDK, is imported when the first step begins.
    return Step(name, lambda: getattr(work(), name)(), key)
