"""What the service is known to refuse, told before anything is made; and whether a run goes on where it began."""

from importlib.util import find_spec

from runner import distributed, methods, models
from runner.backends.foundry import endpoint
from runner.backends.foundry.catalogue import catalogue
from runner.backends.foundry.keys import Foundry
from runner.data.survey import Survey
from runner.errors import DataError, RequestError
from runner.hosted import methods as wire_forms
from runner.hosted import rewards
from runner.record.journal import RunState
from runner.request.keys import Request

MIN_ROWS = 10
MAX_FILE_BYTES = 512 << 20
MAX_SEED = 2**31 - 1


def check(request: Request, survey: Survey) -> None:
    """Raise `RequestError` or `DataError` for what the service is known to refuse."""
    settings = Foundry.of(request)
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
    _check_method(request, survey)
    if request.evaluation.keep == "best":
        raise RequestError("evaluation.keep: got best; a hosted job ends with its last weights; use keep=last.")
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
        _demand_way_there(settings)


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


def _demand_way_there(settings: Foundry) -> None:
    """Raise the error for whatever is missing to reach the service, before anything is made."""
    if find_spec("openai") is None or find_spec("azure") is None:
        raise RequestError("backend: foundry needs packages that are not installed; pip install 'runner[foundry]'.")
    endpoint.find_endpoint(settings.azure)
    if settings.deploy != "none":
        endpoint.control_plane(settings.azure)


def stay_where_it_began(settings: Foundry, state: RunState) -> None:
    """Raise `RequestError` where a run that was begun at one project is to go on at another."""
    # File and job ids mean nothing at another project.
    begun = state.results.get("upload", {}).get("endpoint")
    now = endpoint.find(settings.azure, "endpoint")
    if begun and now and begun != now.rstrip("/"):
        raise RequestError(
            f"backend.azure.endpoint: this plan was begun at {begun}, not at {now}; what was uploaded and created is "
            "there; set that endpoint, or move the run's folder away to begin anew."
        )
