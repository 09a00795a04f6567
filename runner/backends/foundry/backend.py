"""Microsoft Foundry as the rest of the runner sees it: checks, price, steps, and what the other commands ask of it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from runner import distributed, graders, methods, models
from runner.backends import Backend, Jobs, Lines, Removal, Resolved, Respondent, Result, Step, step_of
from runner.backends.foundry import endpoint, price, vision
from runner.backends.foundry.catalogue import catalogue
from runner.backends.foundry.keys import Foundry
from runner.cost import Cost, Tokens
from runner.data.survey import Survey, TokenLimit
from runner.errors import DataError, ModelError, RequestError
from runner.graders import Json
from runner.hosted import methods as wire_forms
from runner.hosted import rewards
from runner.hosted.methods import WireForm
from runner.methods import AnyMethod, Hyperparameters
from runner.plan import Proposal, Run
from runner.record import samples
from runner.record.events import Created
from runner.record.journal import RunState
from runner.request.keys import Request

if TYPE_CHECKING:
    from runner.backends import StableDeployment
    from runner.backends.foundry.deployed_steps import DeployedSteps
    from runner.backends.foundry.steps import FoundrySteps

MIN_ROWS = 10
MAX_FILE_BYTES = 512 << 20
MAX_SEED = 2**31 - 1
LIMITS: dict[str, float] = {"n_epochs": 50, "batch_size": 256}
"""What the service takes: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning and its OpenAPI."""
GRADER = "grader"
"""The key of a method that is graded."""
REMOVED = ("deployment", "file")
"""What `runner.clean` removes, in this order; tuned models and the records of jobs cost nothing."""


class FoundryBackend(Backend[Foundry]):
    """Fine-tuning jobs of Microsoft Foundry."""

    name = "foundry"
    settings = Foundry
    hosted = True
    grades = True
    vision = staticmethod(vision.of)

    def check(self, request: Request, survey: Survey) -> None:
        """Raise `RequestError` or `DataError` for what the service is known to refuse."""
        _check(request, survey)

    def limit(self, request: Request) -> TokenLimit | None:
        """Return how many tokens the service reads of a row, where the table of models says so."""
        return _limit(request)

    def resolve(
        self, settings: Foundry, method: AnyMethod, hyperparameters: Hyperparameters, num_rows: int
    ) -> Resolved[Foundry]:
        """Leave `auto` to the service; refuse what a hosted job cannot take.

        Raises `RequestError` for a hyperparameter that only the local backend knows, or one out of the service's range.
        """
        form = wire_forms.load(method.name)
        _refuse(method.name, hyperparameters, form)
        # Only what was left to us: a value that was asked for needs no reason.
        reasons = {key: "what a hosted job does" for key in form.fixed if getattr(hyperparameters, key) == "auto"}
        chosen: dict[str, Any] = dict(form.fixed)  # keys of the method's own dataclass, whose types differ
        if method.graded:  # as the job has it, so that what is not sent makes no other plan
            chosen[GRADER] = rewards.described(
                graders.make(getattr(hyperparameters, GRADER), f"{method.name}.{GRADER}")
            )
        resolved = replace(hyperparameters, **chosen)
        return Resolved(settings, resolved, {f"{method.name}.{key}": reason for key, reason in reasons.items()})

    def identity(self, settings: Foundry) -> dict[str, Json]:
        """Return the kind of training; where the service is and how it is asked do not change the result."""
        return {"training_type": settings.training_type}

    def cost(self, run: Run, tokens: Tokens | None) -> Cost:
        """Return the price of training by the table of prices; it is zero once the job exists, as it is paid once."""
        return price.cost(run, tokens)

    def forecast(self, proposal: Proposal, tokens: Tokens | None) -> Lines:
        """Return the price of training, what is created, what keeps costing, and what is known to exist."""
        return price.forecast(proposal, tokens)

    def steps(self, run: Run, state: RunState) -> Sequence[Step]:
        """Return the steps; the SDKs are loaded when the first of them runs (steps.py)."""

        @cache
        def work() -> "FoundrySteps":
            from runner.backends.foundry.steps import FoundrySteps

            return FoundrySteps(run, state)

        @cache
        def deployed() -> "DeployedSteps":
            from runner.backends.foundry.deployed_steps import DeployedSteps

            return DeployedSteps(run, state)

        step, later = partial(step_of, work), partial(step_of, deployed)
        settings = Foundry.of(run.request)
        endpoint.stay_where_it_began(settings, state)
        tried = settings.validate_grader and methods.load(run.plan.method).graded
        found = [*([step("try_grader")] if tried else []), step("upload"), step("create")]
        if not settings.follow:
            # A key that is never the same, so that the journal's result of the last look is not taken for this one.
            return [*found, step("look", f"at {time.time():.3f}")]
        found += [step("follow"), step("results"), step("save")]
        if settings.deploy == "none":
            return found
        # Keys of the steps: another SKU, capacity or sampling does those steps again, and not the job.
        deployed_as, sampling = _deployed_as(settings), samples.key(run.request)
        if settings.deploy == "keep":
            return [*found, later("deploy", deployed_as), later("sample", sampling)]
        both = f"{deployed_as}, {sampling}"  # other samples need the deployment once more
        return [*found, *(later(each, both) for each in ("deploy", "sample", "undeploy"))]

    def advice(self, run: Run, results: Mapping[str, Result]) -> Lines:
        """Return what to do with a hosted job: come back to it, use its model, remove what exists."""
        name = run.handle
        if "save" not in results:
            return [
                (f"python -m runner.watch {name}", "come back to the job, to its end"),
                ("python -m runner.jobs", "all jobs of the service; cancel, pause, resume"),
            ]
        deploy, talk = Foundry.of(run.request).deploy, "talk to it and to the model it came from"
        return [
            *[("the same command with backend.deploy=delete_after_eval", "see it answer")] * (deploy == "none"),
            *[(f"python -m runner.chat {name}", talk)] * (deploy == "keep"),
            (f"python -m runner backend=foundry model.source=run:{name} …", "continue from it"),
            (f"python -m runner.clean {name}", "list, and after asking remove, what this run left at the service"),
        ]

    def respondents(self, run: Run, state: RunState) -> Mapping[str, Respondent]:
        """Return the base and the tuned model and its checkpoints; raises `ModelError` if there is no model yet."""
        if "save" not in state.results:
            raise ModelError(f"model.source: {run.folder.name} has no model yet; let that run finish first.")
        from runner.backends.foundry import undeployed

        return undeployed.models_of(run, state)

    def respondent(self, reference: str, settings: Foundry) -> Respondent | None:
        """Return a deployment of the project, by `deployment:NAME`, or one of a base model, by `hosted:NAME`.

        Raises `ModelError` where no deployment of that base model exists.
        """
        scheme, _, name = reference.partition(":")
        base = models.hosted_name(reference)
        if base is None and (scheme != "deployment" or not name):
            return None
        from runner.backends.foundry import deployment

        return deployment.respondent(settings, name, base)

    def stable_deployment(self, run: Run, name: str) -> "StableDeployment":
        """Return what makes, moves and removes a deployment that callers use."""
        from runner.backends.foundry import deployment

        return deployment.Stable(Foundry.of(run.request), name, models.hosted_name(run.plan.model.source) or "")

    def to_its_end(self, run: Run) -> Run:
        """Return the run with `backend.follow=true`."""
        return replace(run, request=replace(run.request, backend=replace(Foundry.of(run.request), follow=True)))

    def jobs(self, settings: Foundry) -> Jobs:
        """Return the jobs of the service."""
        from runner.backends.foundry.connect import service
        from runner.backends.foundry.maintenance import FoundryJobs

        return FoundryJobs(service(settings))

    def leftovers(self, state: RunState) -> Sequence[Created]:
        """Return the deployments, then the files, that a run has created."""
        # Deployments first, as they cost by the hour.
        return sorted((e for e in state.created.values() if e.what in REMOVED), key=lambda e: REMOVED.index(e.what))

    def remove(self, run: Run, state: RunState, leftovers: Sequence[Created]) -> Iterable[Removal]:
        """Remove deployments and files; files that a live job still uses are kept."""
        from runner.backends.foundry.maintenance import remove

        return remove(Foundry.of(run.request), state, leftovers)


def _deployed_as(settings: Foundry) -> str:
    wanted = settings.deployment
    return f"{settings.deploy} {wanted.name} {wanted.sku} {wanted.capacity}, beside {wanted.base}"


def _limit(request: Request) -> TokenLimit | None:
    name = models.hosted_name(request.model.source)
    found = catalogue(Foundry.of(request).models).find(name) if name else None
    counter = models.counter(f"hosted:{name}") if name else None
    if not (found and found.max_row_tokens and counter):
        return None
    seen = vision.of(request).tokens
    # The service reads no more of a row than this; here a longer one is at least a warning.
    return TokenLimit(found.max_row_tokens, lambda rows: [counter.tokens(row) + seen(row) for row in rows])


def _check(request: Request, survey: Survey) -> None:
    """Raise `RequestError` or `DataError` for what the service is known to refuse."""
    settings = Foundry.of(request)
    if request.method not in wire_forms.names():
        raise RequestError(
            f"method: got {request.method}, which hosted jobs do not offer; allowed: {', '.join(wire_forms.names())}; "
            "use one of them, or backend=local."
        )
    # Each rank would create a job of its own.
    if distributed.this_rank().world_size > 1:
        raise RequestError("torchrun: backend=foundry computes nothing here; give the same command without it.")
    name = models.hosted_name(request.model.source)
    if name is None:
        raise RequestError(
            f"model.source: got {request.model.source}; the service trains its own models only; "
            "use model=hosted (MODEL_NAME) or model.source=hosted:NAME."
        )
    table = catalogue(settings.models)
    table.demand(name, request.method)
    table.demand_training_type(name, settings.training_type)
    if settings.deploy != "none":
        table.demand_sku(name, settings.deployment.sku)
    _check_method(request, survey)
    vision.check(table, survey)
    if request.evaluation.keep == "best":
        raise RequestError("evaluation.keep: got best; a hosted job ends with its last weights; use keep=last.")
    if request.evaluation.keep_by is not None:
        raise RequestError(
            f"evaluation.keep_by: got {request.evaluation.keep_by}; a hosted job ends with its last weights; use null."
        )
    if request.evaluation.patience is not None:
        raise RequestError(
            f"evaluation.patience: got {request.evaluation.patience}; a hosted job goes to its end; use patience=null."
        )
    if request.seed > MAX_SEED:
        raise RequestError(f"seed: got {request.seed}; the service takes up to {MAX_SEED}.")
    if survey.splits["train"].rows < MIN_ROWS:
        raise DataError(
            f"dataset.train: has {survey.splits['train'].rows} rows; the service takes {MIN_ROWS} or more; add some."
        )
    for split, rows in survey.splits.items():
        if rows.bytes > MAX_FILE_BYTES:
            raise DataError(
                f"dataset.{split}: is {rows.bytes >> 20:,} MiB; the service takes files up to "
                f"{MAX_FILE_BYTES >> 20} MiB; set dataset.max_rows, or take rows out."
            )
    if settings.deploy == "delete_after_eval" and request.evaluation.samples == 0:
        raise RequestError(
            "evaluation.samples: got 0, so backend.deploy=delete_after_eval would deploy for nothing; ask for "
            "some, or use backend.deploy=none."
        )
    # A plan can be made on a machine that has neither the SDKs nor a login.
    if request.mode == "run":
        endpoint.demand_way_there(settings)


def _check_method(request: Request, survey: Survey) -> None:
    """Raise for what the service is known to refuse of the method: no held-out rows, a grader that it does not know."""
    form = wire_forms.load(request.method)
    held_out = survey.splits["validation"].rows if "validation" in survey.splits else 0
    if form.needs_validation and held_out < MIN_ROWS:
        raise DataError(
            f"dataset.validation: {f'has {held_out} rows' if held_out else 'there are no held-out rows'}; the service "
            f"takes method={request.method} with {MIN_ROWS} or more; set dataset.validation=FILE, or "
            "dataset.validation_fraction."
        )
    graded = methods.load(request.method).graded
    if graded and (refused := list(rewards.refusals(rewards.grader_of(request), f"{request.method}.grader"))):
        raise RequestError("\n".join(refused))


def _refuse(method: str, hyperparameters: Hyperparameters, form: WireForm) -> None:
    """Raise `RequestError` for a hyperparameter that only the local backend knows, or beyond the service's range."""
    for key, most in (LIMITS | dict(form.limits)).items():
        value = getattr(hyperparameters, key, "auto")
        if isinstance(value, int | float) and value > most:
            raise RequestError(f"{method}.{key}: got {value}; the service takes up to {most}, or auto.")
    for key, means in form.fixed.items():
        asked = getattr(hyperparameters, key)
        if asked not in ("auto", means):
            raise RequestError(
                f"{method}.{key}: got {asked}; hosted jobs have no such option (they behave as {means}); "
                "leave it out, or use backend=local."
            )


BACKEND = FoundryBackend()
