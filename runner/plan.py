"""A request becomes a plan: a frozen value that holds all that decides the result, and nothing else.

The sha256 of its canonical JSON is the plan id. Names, folders, tracking and how the work is done are not
in it: the same experiment has the same id wherever and whenever it is asked for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from runner import backends, config, methods, models, run_folders
from runner.config import Request
from runner.data.rows import Row, canonical_lines
from runner.data.selection import Selection, Split, row_blocks
from runner.data.survey import Report, Survey, survey
from runner.data.tally import SplitSurvey
from runner.errors import DataError, RequestError
from runner.models import ModelIdentity

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """The rows of a split: how many, and the fingerprint of their content in canonical form."""

    rows: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """What is going to be done. `hyperparameters` and `settings` hold no `auto` that the runner decides."""

    format: int
    method: str
    hyperparameters: dict[str, Any]
    train: DataIdentity
    validation: DataIdentity | None
    model: ModelIdentity
    backend: str
    settings: dict[str, Any]
    evaluation: dict[str, Any]
    seed: int

    @property
    def splits(self) -> dict[Split, DataIdentity]:
        """The rows of each split that there is."""
        return {"train": self.train, "validation": self.validation} if self.validation else {"train": self.train}

    @cached_property
    def canonical(self) -> bytes:
        """The plan as JSON with sorted keys and no spaces."""
        return msgspec.json.encode(msgspec.to_builtins(self), order="deterministic")

    @cached_property
    def id(self) -> str:
        """sha256 of the canonical JSON, in hexadecimal."""
        return sha256(self.canonical).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A plan with what is needed to carry it out.

    `request` has its backend's `auto` resolved, and `hyperparameters` are resolved too. `folder` is where the
    run lives.
    """

    plan: JobPlan
    request: Request
    hyperparameters: Any
    selection: Selection
    folder: Path

    @property
    def handle(self) -> str:
        """What other commands call the run: its name where they look by themselves, else its folder."""
        return run_folders.handle(self.folder)

    def rows(self, split: Split) -> Iterator[Row]:
        """Read the rows of a split that the plan is made of; none where there is no such split.

        Raises `DataError` after the last row if they are not those of the plan.
        """
        for rows, _ in self.row_blocks(split):
            yield from rows

    def row_blocks(self, split: Split) -> Iterator[tuple[list[Row], bytes]]:
        """Read the same rows block by block, each block with its canonical lines.

        Raises `DataError` after the last block if they are not those of the plan: the files may have been replaced
        since, hours ago in a sweep.
        """
        planned = self.plan.splits.get(split)
        if planned is None:
            return
        digest, count = sha256(), 0
        for _, block in row_blocks(self.selection, (split,), lambda finding: None):
            lines = canonical_lines(block.rows)
            digest.update(lines)
            count += len(block.rows)
            yield block.rows, lines
        if digest.hexdigest() != planned.fingerprint:
            raise DataError(_changed(self.selection, split, planned.rows, count))


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A job with what explains it: what is in the data, and the reason for each value chosen, by key."""

    job: Job
    survey: Survey
    reasons: Mapping[str, str]


@dataclass
class Known:
    """What was found out for one request and holds for others that are planned in the same breath: a sweep's trials."""

    surveys: dict[bytes, Survey] = field(default_factory=dict)
    models: dict[str, ModelIdentity] = field(default_factory=dict)


def make(request: Request, known: Known | None = None, report: Report = lambda progress: None) -> Proposal:
    """Check the data, resolve every `auto` and return the job with its reasons.

    Reads files and creates nothing for the run. Two things may take a while, and are kept in the user's cache: `auto`
    of the local backend measures this machine, once ever, as the plan's id depends on the dtype; and a model of a hub
    is looked up there, unless `mode=plan`.

    What is `known` already is not found out again, and what is found out is added to it; `report` hears how far
    the check of the data is.

    Raises `DataError`, `ModelError` or `RequestError` for what cannot be trained.
    """
    request = _located(request)
    backend = backends.load(request.backend.name)
    known = known or Known()
    identity = _identified(request, known)
    found = _surveyed(request, backend, known, report)
    found.require_trainable(request.dataset.on_bad_row)
    backend.check(request, found)
    splits = {name: _identity(split) for name, split in found.splits.items()}
    settings, hyperparameters, reasons = _resolve(request, splits["train"].rows)
    plan = JobPlan(
        format=FORMAT,
        method=request.method,
        hyperparameters=asdict(hyperparameters),
        train=splits["train"],
        validation=splits.get("validation"),
        model=identity,
        backend=request.backend.name,
        settings=backend.identity(settings),
        evaluation=backend.evaluation(request.evaluation),
        seed=request.top.seed,
    )
    return Proposal(job=_job(request, plan, _folder(request, plan)), survey=found, reasons=reasons)


def _located(request: Request) -> Request:
    """Return the request with the folder that `model.source=run:NAME` means, where that is not in `runs/`.

    The tuned model's reference keeps the source, and must be found by it from wherever the reference is read.
    """
    scheme, _, name = request.model.source.partition(":")
    runs = Path(request.top.runs_folder)
    if scheme != "run" or runs == run_folders.USUAL:
        return request
    return replace(request, model=replace(request.model, source=f"run:{run_folders.find(name, runs)}"))


def _identified(request: Request, known: Known) -> ModelIdentity:
    source = request.model.source
    if source not in known.models:
        known.models[source] = models.identify(source, offline=request.top.mode == "plan")
    return known.models[source]


def _surveyed(request: Request, backend: backends.Backend, known: Known, report: Report) -> Survey:
    selection = _selection(request)
    key = msgspec.json.encode([selection, request.model, request.backend])
    if key not in known.surveys:
        known.surveys[key] = survey(selection, backend.limit(request), report)
    return known.surveys[key]


def load(folder: Path) -> Job:
    """Return the job of a run's folder, as it was planned; the data is not read.

    Raises `RequestError` where the folder holds no plan.
    """
    try:
        plan = msgspec.json.decode((folder / "plan.json").read_bytes(), type=JobPlan)
        request = config.request(msgspec.json.decode((folder / "request.json").read_bytes()))
    except FileNotFoundError as error:
        raise RequestError(f"{error.filename}: not there, so {folder} is no run that was begun; name one.") from error
    return _job(request, plan, folder)


def _job(request: Request, plan: JobPlan, folder: Path) -> Job:
    settings, hyperparameters, _ = _resolve(request, plan.train.rows)
    return Job(
        plan=plan,
        request=replace(request, backend=settings),
        hyperparameters=hyperparameters,
        selection=_selection(request),
        folder=folder,
    )


def _resolve(request: Request, num_rows: int) -> backends.Resolved:
    backend, method = backends.load(request.backend.name), methods.load(request.method)
    return backend.resolve(request.backend, method, request.hyperparameters, num_rows)


def _selection(request: Request) -> Selection:
    dataset = request.dataset
    return Selection(
        train=dataset.train,
        validation=dataset.validation,
        kind=methods.load(request.method).kind,
        format=dataset.format,
        validation_fraction=dataset.validation_fraction,
        split_seed=dataset.split_seed,
        max_rows=dataset.max_rows,
        max_held_out_rows=request.evaluation.max_rows,
    )


def _changed(selection: Selection, split: Split, planned: int, found: int) -> str:
    """Say how the rows of a split differ from those that were planned."""
    own = split == "validation" and selection.validation is not None
    where = selection.validation if own else selection.train
    files = where if isinstance(where, str) else ", ".join(where or ())
    change = f"{planned:,} rows were planned, now there are {found:,}"
    if planned == found:
        change = f"it still has {found:,} rows, but with other content"
    return (
        f"dataset.{'validation' if own else 'train'}: {files} has changed since the run was planned: {change}; "
        "restore it, or give the command again to plan a run with the new rows."
    )


def _identity(split: SplitSurvey) -> DataIdentity:
    return DataIdentity(rows=split.rows, fingerprint=split.fingerprint)


def _folder(request: Request, plan: JobPlan) -> Path:
    """Return the run's folder: the one that holds this plan already, under whatever name, or a new one."""
    runs = Path(request.top.runs_folder)
    name = request.top.name
    if name == "auto":  # what differs comes first: the same name is MLflow's, in a narrow column
        where = "hosted-" if backends.load(plan.backend).hosted else ""
        name = f"{where}{plan.method}-{_stem(request.dataset.train)}"
    return run_folders.of_plan(plan.id, runs) or run_folders.new(name, plan.id, runs)


def _stem(train: str | list[str]) -> str:
    first = train if isinstance(train, str) else train[0]
    stem = Path(first.rpartition(":")[2]).name.partition(".")[0]
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in stem).strip("-") or "data"
