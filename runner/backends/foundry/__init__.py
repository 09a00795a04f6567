"""Microsoft Foundry, the hosted service: upload, create, follow, results, and if wanted a deployment that answers.

This file is all that a plan needs to know; the service's SDKs are imported by the steps (work.py).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from runner import distributed, models
from runner.backends import Backend, Resolved, Step
from runner.backends.foundry import endpoint
from runner.backends.foundry import price as prices
from runner.backends.foundry.catalogue import catalogue
from runner.data.survey import TokenLimit
from runner.errors import DataError, RequestError
from runner.methods import Method
from runner.request.types import PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from runner.data.survey import Survey
    from runner.plan import Run
    from runner.record.journal import RunState
    from runner.request.keys import Evaluation, Request

MIN_ROWS = 10
MAX_FILE_BYTES = 512 << 20
MAX_SEED = 2**31 - 1
LIMITS = {"n_epochs": 50, "batch_size": 256, "beta": 2}
"""What the service takes: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning and its OpenAPI."""


@dataclass(frozen=True, kw_only=True)
class Azure:
    """Keys under `backend.azure`: where the service is. Never a secret; who we are is the credential's matter."""

    endpoint: str | None = None
    """The project's endpoint; null takes AZURE_AI_PROJECT_ENDPOINT or FOUNDRY_PROJECT_ENDPOINT (environment, .env)."""
    subscription: str | None = None
    """For deployments: the subscription's id; null takes AZURE_SUBSCRIPTION_ID."""
    resource_group: str | None = None
    """For deployments: the resource group; null takes AZURE_RESOURCE_GROUP."""
    account: str | None = None
    """For deployments: the Foundry resource's name; null takes AZURE_AI_ACCOUNT, else it is read off the endpoint."""
    credential: Literal["default", "cli", "developer_cli", "environment", "managed_identity", "workload_identity"] = (
        "default"
    )
    """How to prove who we are: `default` is Azure's DefaultAzureCredential, which tries the others in turn."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Keys under `backend.deployment`: how the tuned model is deployed, with `backend.deploy`."""

    name: str = "auto"
    """What it is called; auto takes the plan id's first digits."""
    sku: Literal["Standard", "GlobalStandard", "DeveloperTier", "ProvisionedManaged"] = "GlobalStandard"
    """The kind; DeveloperTier has no hourly price and is removed by the service after 24 hours."""
    capacity: PositiveInt = 50
    """Thousands of tokens a minute (ProvisionedManaged: units)."""
    base: str | None = "auto"
    """A deployment of the base model that answers beside it; auto looks for one, null leaves it out."""


@dataclass(frozen=True, kw_only=True)
class Polling:
    """Keys under `backend.polling`: how the service is asked; not part of the plan's identity."""

    every: PositiveFloat = 15.0
    """Seconds between two looks at a job, jittered; longer while it is queued."""
    requests_per_second: PositiveFloat = 5.0
    """The most requests this process sends, over all the jobs it follows."""
    patience: PositiveFloat = 900.0
    """Seconds a failing service is asked again before the runner gives up; a hosted job goes on without it."""


@dataclass(frozen=True, kw_only=True)
class Foundry:
    """Keys under `backend` with `backend=foundry`."""

    name: Literal["foundry"] = "foundry"
    """The backend."""
    training_type: Literal["Standard", "GlobalStandard", "Developer"] = "GlobalStandard"
    """The service's trainingType: where it may train, and at what price."""
    suffix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,18}$")] | None = None
    """Put into the tuned model's name: up to 18 letters, digits, - and _; null takes the plan id's first digits."""
    follow: bool = True
    """Stay until the job is done; false leaves once it is created, and `python -m runner.watch` comes back to it."""
    deploy: Literal["none", "keep", "delete_after_eval"] = "none"
    """Deploy the tuned model to answer held-out prompts; a deployment that stands is paid by the hour."""
    deployment: Deployment = field(default_factory=Deployment)
    """The deployment."""
    azure: Azure = field(default_factory=Azure)
    """Where the service is."""
    polling: Polling = field(default_factory=Polling)
    """How it is asked."""
    models: str | None = None
    """A YAML file with models and prices, to take instead of the one that comes with the runner."""


def check(request: "Request", found: "Survey") -> None:
    """Raise `RequestError` or `DataError` for what the service is known to refuse."""
    if distributed.this_rank().world_size > 1:
        raise RequestError("torchrun: backend=foundry computes nothing here; give the same command without it.")
    name = models.hosted_name(request.model.source)
    if name is None:
        raise RequestError(
            f"model.source: got {request.model.source}; the service trains its own models only; "
            "use model=hosted (MODEL_NAME) or model.source=hosted:NAME."
        )
    catalogue(request.backend.models).demand(name, request.method)
    if request.evaluation.keep == "best":
        raise RequestError("evaluation.keep: got best; a hosted job ends with its last weights; use keep=last.")
    if request.evaluation.patience is not None:
        raise RequestError(
            f"evaluation.patience: got {request.evaluation.patience}; a hosted job goes to its end; use patience=null."
        )
    if request.seed > MAX_SEED:
        raise RequestError(f"seed: got {request.seed}; the service takes up to {MAX_SEED}.")
    if found.splits["train"].rows < MIN_ROWS:
        raise DataError(
            f"dataset.train: has {found.splits['train'].rows} rows; the service takes {MIN_ROWS} or more; add some."
        )
    for split, rows in found.splits.items():
        if rows.bytes > MAX_FILE_BYTES:
            raise DataError(
                f"dataset.{split}: is {rows.bytes >> 20:,} MiB; the service takes files up to "
                f"{MAX_FILE_BYTES >> 20} MiB; set dataset.max_rows, or take rows out."
            )
    if request.backend.deploy == "delete_after_eval" and request.evaluation.samples == 0:
        raise RequestError(
            "evaluation.samples: got 0, so backend.deploy=delete_after_eval would deploy for nothing; ask for some, or "
            "use backend.deploy=none."
        )
    if request.mode == "run":
        _demand_way_there(request.backend)


def _demand_way_there(settings: Foundry) -> None:
    """Raise the error for whatever is missing to reach the service, before anything is made."""
    if find_spec("openai") is None or find_spec("azure") is None:
        raise RequestError("backend: foundry needs packages that are not installed; pip install 'runner[foundry]'.")
    endpoint.find_endpoint(settings.azure)
    if settings.deploy != "none":
        endpoint.control_plane(settings.azure)


def limit(request: "Request") -> TokenLimit | None:
    """Return how many tokens the service reads of a row, where the table of models says so."""
    name = models.hosted_name(request.model.source)
    found = catalogue(request.backend.models).find(name) if name else None
    counter = models.counter(f"hosted:{name}") if name else None
    if not (found and found.max_row_tokens and counter):
        return None
    count = counter.tokens
    return TokenLimit(found.max_row_tokens, lambda rows: [count(row) for row in rows])


def resolve(settings: Foundry, method: Method, hyperparameters: Any, num_rows: int) -> Resolved:
    """Leave `auto` to the service; refuse what a hosted job cannot take.

    Raises `RequestError` for a hyperparameter that only the local backend knows, or one out of the service's range.
    """
    for key, most in LIMITS.items():
        value: Any = getattr(hyperparameters, key, "auto")
        if value != "auto" and value > most:
            raise RequestError(f"{method.name}.{key}: got {value}; the service takes up to {most}, or auto.")
    fixed = method.hosted
    for key, value in fixed.items():
        asked = getattr(hyperparameters, key)
        if asked not in ("auto", value):
            raise RequestError(
                f"{method.name}.{key}: got {asked}; a hosted job knows no such key and does what {value} means; "
                "leave it out, or use backend=local."
            )
    reasons = {key: "what a hosted job does" for key in fixed if getattr(hyperparameters, key) == "auto"}
    resolved = replace(hyperparameters, **fixed)
    return settings, resolved, {f"{method.name}.{key}": reason for key, reason in reasons.items()}


def identity(settings: Foundry) -> dict[str, Any]:
    """Return the kind of training; where the service is and how it is asked do not change the result."""
    return {"training_type": settings.training_type}


def evaluation(wanted: "Evaluation") -> dict[str, Any]:
    """Return nothing: the service evaluates as it likes."""
    return {}


def steps(run: "Run", state: "RunState") -> Sequence[Step]:
    """Return the steps; the SDKs are loaded when the first of them runs (work.py)."""

    @cache
    def work() -> Any:
        from runner.backends.foundry.steps import FoundrySteps

        return FoundrySteps(run, state)

    def step(name: str, key: str = "") -> Step:
        return Step(name, lambda: getattr(work(), name)(), key)

    settings, wanted = run.request.backend, run.request.evaluation
    _stay_where_it_began(settings, state)
    found = [step("upload"), step("create")]
    if not settings.follow:
        return [*found, step("look", f"at {time.time():.3f}")]  # each time anew
    found += [step("follow"), step("results"), step("save")]
    if settings.deploy == "none":
        return found
    wanted_deployment = settings.deployment
    standing = f"{settings.deploy} {wanted_deployment.name} {wanted_deployment.sku} {wanted_deployment.capacity}"
    standing += f", beside {wanted_deployment.base}"
    sampling = f"{wanted.samples} answers of {wanted.max_new_tokens} tokens, style {run.request.dataset.style}"
    if settings.deploy == "keep":
        return [*found, step("deploy", standing), step("sample", sampling)]
    both = f"{standing}, {sampling}"  # other samples need the deployment once more
    return [*found, step("deploy", both), step("sample", both), step("undeploy", both)]


def _stay_where_it_began(settings: Foundry, state: "RunState") -> None:
    """Raise `RequestError` where a run that was begun at one project is to go on at another."""
    begun = state.results.get("upload", {}).get("endpoint")
    now = endpoint.find(settings.azure, "endpoint")
    if begun and now and begun != now.rstrip("/"):
        raise RequestError(
            f"backend.azure.endpoint: this plan was begun at {begun}, not at {now}; what was uploaded and created is "
            "there; set that endpoint, or move the run's folder away to begin anew."
        )


def advice(run: "Run", results: Mapping[str, dict[str, Any]]) -> Sequence[tuple[str, str]]:
    """Return what to do with a hosted job: come back to it, use its model, remove what stands."""
    name = run.handle
    if "save" not in results:
        return [
            (f"python -m runner.watch {name}", "come back to the job, to its end"),
            ("python -m runner.jobs", "all jobs of the service; cancel, pause, resume"),
        ]
    talk = {
        "none": ("the same command with backend.deploy=delete_after_eval", "see it answer"),
        "keep": (f"python -m runner.chat {name}", "talk to it, beside the model it came from"),
    }
    return [
        *(line for deploy, line in talk.items() if deploy == run.request.backend.deploy),
        (f"python -m runner backend=foundry model.source=run:{name} …", "go on from it"),
        (f"python -m runner.clean {name}", "list, and after asking remove, what this run left at the service"),
    ]


BACKEND = Backend(
    name="foundry",
    settings=Foundry,
    check=check,
    limit=limit,
    resolve=resolve,
    identity=identity,
    evaluation=evaluation,
    cost=prices.cost,
    outlook=prices.outlook,
    steps=steps,
    advice=advice,
    hosted=True,
)
