"""A request becomes a plan: a frozen value that holds all that decides the result, and nothing else.

The sha256 of its canonical JSON is the plan id. Names, folders, tracking and how the work is done are not
in it: the same experiment has the same id wherever and whenever it is asked for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from runner import backends, methods, models
from runner.backends import Backend
from runner.config import Request
from runner.data.rows import Row
from runner.data.selection import Selection, Split, read_rows
from runner.data.survey import Survey, TokenLimit, survey
from runner.data.tally import SplitSurvey
from runner.errors import DataError, RequestError
from runner.models import ModelIdentity
from runner.models.reference import tokenizer_folder
from runner.tokens import ChatTokenizer

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
    """A plan with what is needed to carry it out and to explain it.

    `request` has its backend's `auto` resolved, and `hyperparameters` are resolved too; `reasons` says why,
    by key. `folder` is where the run lives.
    """

    plan: JobPlan
    request: Request
    hyperparameters: Any
    survey: Survey
    selection: Selection
    reasons: Mapping[str, str]
    folder: Path

    def rows(self, split: Split) -> Iterator[Row]:
        """Read the rows of a split that the plan is made of; none where there is no such split."""
        return read_rows(self.selection, split) if split in self.survey.splits else iter(())


def make(request: Request) -> Job:
    """Check the data, resolve every `auto` and return the job. Reads files; touches nothing.

    Raises `DataError`, `ModelError` or `RequestError` for what cannot be trained.
    """
    method, backend = methods.load(request.method), backends.load(request.backend.name)
    identity = models.identify(request.model.source, offline=request.top.mode == "plan")
    dataset = request.dataset
    selection = Selection(
        train=dataset.train,
        validation=dataset.validation,
        kind=method.kind,
        format=dataset.format,
        validation_fraction=dataset.validation_fraction,
        split_seed=dataset.split_seed,
        max_rows=dataset.max_rows,
    )
    found = survey(selection, _limit(request))
    found.require_trainable(dataset.on_bad_row)
    _refuse_tools(found, backend)
    if request.evaluation.keep == "best" and "validation" not in found.splits:
        raise RequestError(
            "evaluation.keep: got best, but there are no held-out rows to judge by; "
            "set dataset.validation or dataset.validation_fraction, or keep=last."
        )
    num_rows = found.splits["train"].rows
    settings, hyperparameters, reasons = backend.resolve(request.backend, method, request.hyperparameters, num_rows)
    plan = JobPlan(
        format=FORMAT,
        method=request.method,
        hyperparameters=asdict(hyperparameters),
        train=_identity(found.splits["train"]),
        validation=_identity(found.splits["validation"]) if "validation" in found.splits else None,
        model=identity,
        backend=request.backend.name,
        settings=backend.identity(settings),
        evaluation={"every": request.evaluation.every, "keep": request.evaluation.keep},
        seed=request.top.seed,
    )
    return Job(
        plan=plan,
        request=replace(request, backend=settings),
        hyperparameters=hyperparameters,
        survey=found,
        selection=selection,
        reasons=reasons,
        folder=_folder(request, plan),
    )


def _refuse_tools(found: Survey, backend: Backend) -> None:
    for name, split in found.splits.items():
        if split.with_tools and not backend.takes_tools:
            raise DataError(
                f"dataset.{name}: {split.with_tools:,} of {split.rows:,} rows declare or call tools, which "
                f"backend={backend.name} cannot train on; take them out, or use a backend that can (foundry)."
            )


def tokenizer(request: Request) -> ChatTokenizer | None:
    """Return the tokenizer of the model asked for, if the model is on this machine."""
    folder = models.cached(request.model.source)
    return ChatTokenizer(tokenizer_folder(folder)) if folder else None


def _identity(split: SplitSurvey) -> DataIdentity:
    return DataIdentity(rows=split.rows, fingerprint=split.fingerprint)


def _limit(request: Request) -> TokenLimit | None:
    """Return the limit that the backend sets to a row's tokens, where it sets one and can count them."""
    max_length = getattr(request.backend, "max_length", None)
    counter = tokenizer(request) if max_length else None
    return TokenLimit(max_length, counter.count) if max_length and counter else None


def _folder(request: Request, plan: JobPlan) -> Path:
    """Return the run's folder: the one that holds this plan already, under whatever name, or a new one."""
    runs = Path(request.top.runs)
    short = plan.id[:8]
    name = request.top.name if request.top.name != "auto" else f"{plan.method}-{_stem(request.dataset.train)}"
    return next(iter(sorted(runs.glob(f"*-{short}"))), runs / f"{name}-{short}")


def _stem(train: str | list[str]) -> str:
    first = train if isinstance(train, str) else train[0]
    stem = Path(first.rpartition(":")[2]).name.partition(".")[0]
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in stem).strip("-") or "data"
