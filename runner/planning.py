"""Planning: a request is checked against its data and model, each `auto` is resolved, and a plan comes out.

Nothing is guessed: where the model's tokens cannot be counted here there is no price and no time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from runner import backends, graders, methods, models
from runner.cost import Cost, Tokens
from runner.data import mixture
from runner.data.json_value import Json
from runner.data.reading.files import locate
from runner.data.rows import Row
from runner.data.splits import Selection, Split
from runner.data.statistics import SplitSurvey
from runner.data.survey import Report, Survey, survey
from runner.errors import RequestError
from runner.evaluation import configured, judges, reward
from runner.evaluation.rehearsal.rehearsed import Rehearsed
from runner.evaluation.rehearsal.tried import rehearse
from runner.models.source import ModelIdentity
from runner.plan import FORMAT, DataIdentity, Plan, Proposal, Run
from runner.record import layout, run_folders, samples
from runner.record.files import safe_name
from runner.request import check, pinned
from runner.request.keys import BackendKeys, Request


@dataclass
class PlanCache:
    """Surveys, models and rehearsals shared by the trials of one sweep, so that each is looked at once."""

    surveys: dict[bytes, Survey] = field(default_factory=dict)
    models: dict[str, ModelIdentity] = field(default_factory=dict)
    rehearsals: dict[bytes, Sequence[Rehearsed]] = field(default_factory=dict)


def make(request: Request, known: PlanCache | None = None, report: Report = lambda progress: None) -> Proposal:
    """Check the data, resolve every `auto` and return the run with its reasons.

    Reads files and creates nothing for the run. Two things may take a while, and are kept in the user's cache: `auto`
    of the local backend measures this machine, once ever, as the plan's id depends on the dtype; and a model of a hub
    is looked up there, unless `mode=plan`.

    What is `known` already is not found out again, and what is found out is added to it; `report` hears how far
    the check of the data is.

    Raises `DataError`, `ModelError` or `RequestError` for what cannot be trained.
    """
    if request.harness:
        raise RequestError(
            "harness: benchmarks are run by python -m runner.evaluate MODEL harness=[TASK]; leave it out."
        )
    request = reward.with_grader(_located(pinned.of(request)))
    backend = backends.load(request.backend.name)
    known = known or PlanCache()
    identity = _identified(request, known)
    found = _surveyed(request, backend, known, report)
    # Data first: what a backend refuses may depend on it, and so does `auto` (the number of rows).
    found.require_trainable(request.dataset.on_bad_row)
    backend.check(request, found)
    splits = {name: _identity(split) for name, split in found.splits.items()}
    settings, hyperparameters, reasons = _resolve(request, splits["train"].rows)
    plan = Plan(
        format=FORMAT,
        method=request.method,
        hyperparameters=_planned(request, hyperparameters),
        train=splits["train"],
        validation=splits.get("validation"),
        model=identity,
        backend=request.backend.name,
        settings=backend.identity(settings),
        evaluation=backend.evaluation(request) | _held_out_sources(request, found),
        seed=request.seed,
    )
    run = replace(_run(request, plan, _folder(request, plan)), survey=found)
    left_out = list(_left_out(request))
    return Proposal(run=run, survey=found, reasons=reasons, rehearsed=_rehearsed(run, known), left_out=left_out)


def _held_out_sources(request: Request, found: Survey) -> dict[str, Json]:
    """Return how many held-out rows there are of each source of a mixture, in their order: metrics are shown by it."""
    mix = mixture.read(request.dataset.mix or {})
    if not mix or request.dataset.validation is not None or "validation" not in found.splits:
        return {}
    # The rows are in the order of the files: counts say which row is of which source, without a word in each.
    rows = found.by_file["validation"]
    return {"sources": {name: sum(rows.get(file.name, 0) for file in locate(each.source)) for name, each in mix}}


def _not_taken(request: Request) -> frozenset[str]:
    """Return the keys of the method that the backend does not take."""
    method = methods.load(request.method)
    return method.loop_keys if backends.load(request.backend.name).hosted else method.service_keys


def _planned(request: Request, hyperparameters: Any) -> dict[str, Any]:
    """Return the hyperparameters that decide the result, as a plan has them."""
    # Without those that are not taken: a job of a service is the same whatever our own loop would do, and its id too.
    taken = {key: value for key, value in asdict(hyperparameters).items() if key not in _not_taken(request)}
    return msgspec.convert(graders.hidden(taken, variables=True), dict[str, Any])


def _left_out(request: Request) -> Iterator[str]:
    """Say which keys are set and have no effect: one YAML serves several backends, so they are no mistake."""
    usual = {each.name: each.default for each in fields(request.hyperparameters)}
    # What equals the default may not have been typed at all.
    chosen = [
        key for key in usual if key in _not_taken(request) and getattr(request.hyperparameters, key) != usual[key]
    ]
    if chosen:
        keys = ", ".join(f"{request.method}.{key}" for key in chosen)
        hosted = backends.load(request.backend.name).hosted
        why = "the service has its own values" if hosted else "only a hosted service takes them"
        yield f"{keys}: not used by backend={request.backend.name}; {why}"


def _located(request: Request) -> Request:
    """Return the request with the folder that `model.source=run:NAME` means, where that is not in `runs/`.

    The tuned model's reference keeps the source, and must be found by it from wherever the reference is read.
    """
    scheme, _, name = request.model.source.partition(":")
    runs = Path(request.runs_folder)
    if scheme != "run" or runs == run_folders.USUAL:
        return request
    return replace(request, model=replace(request.model, source=f"run:{run_folders.find(name, runs)}"))


def _identified(request: Request, known: PlanCache) -> ModelIdentity:
    source = request.model.source
    if source not in known.models:
        known.models[source] = models.identify(source, offline=request.mode == "plan")
    return known.models[source]


def _surveyed(request: Request, backend: backends.AnyBackend, known: PlanCache, report: Report) -> Survey:
    wanted = selection(request)
    # The backend and the model, too: they say how many tokens a row may have.
    key = msgspec.json.encode([wanted, request.model, request.backend])
    if key not in known.surveys:
        known.surveys[key] = survey(wanted, backend.limit(request), report, vision=backends.vision(request))
    return known.surveys[key]


def _rehearsed(run: Run, known: PlanCache) -> Sequence[Rehearsed]:
    """Try the grader of a run's reward on the rows of its splits, and its other graders on those that will be asked."""
    reward = list(_rehearsed_reward(run, known))
    # The reward may be named for the evaluation, too, where it seldom adds anything.
    reported = [each.shown for each in reward]
    return [*reward, *(each for each in _rehearsed_on_asked(run, known) if each.shown not in reported)]


def _rehearsed_reward(run: Run, known: PlanCache) -> Sequence[Rehearsed]:
    if not methods.load(run.request.method).graded:
        return ()
    key = msgspec.json.encode([run.selection, run.request.hyperparameters.grader])
    if key not in known.rehearsals:
        known.rehearsals[key] = reward.rehearsed(run)
    return known.rehearsals[key]


def _rehearsed_on_asked(run: Run, known: PlanCache) -> Sequence[Rehearsed]:
    request = run.request
    graders = configured.of_request(request)
    if not graders or samples.most(request) == 0:
        return ()
    keys = request.evaluation.judge
    if request.mode == "run":
        # A plan can be made where no key is; a run would only fail after it has trained.
        judges.demand_key(keys, graders)
    key = msgspec.json.encode([run.selection, request.evaluation, request.dataset.style])
    if key not in known.rehearsals:
        rows = samples.rows_to_ask(request, run.held_out())
        known.rehearsals[key] = rehearse(rows, graders, keys, samples.sampling(request))
    return known.rehearsals[key]


def load(folder: Path) -> Run:
    """Return the run of a run's folder, as it was planned; the data is not read.

    Raises `RequestError` where the folder holds no plan, or one of another version that cannot be read.
    """
    reading = folder / layout.PLAN
    try:
        plan = msgspec.json.decode(reading.read_bytes(), type=Plan)
        reading = folder / layout.REQUEST
        request = check.request(msgspec.json.decode(reading.read_bytes(), type=dict[str, object]))
    except FileNotFoundError as error:
        raise RequestError(f"{error.filename}: not there, so {folder} is no run that was begun; name one.") from error
    except msgspec.MsgspecError as error:
        raise RequestError(
            f"{reading}: is no {reading.stem} that this version reads ({error}); it makes and reads plans of format "
            f"{FORMAT}; give the run's command again, or read the run with the version that made it."
        ) from error
    return _run(request, plan, folder)


def _run(request: Request, plan: Plan, folder: Path) -> Run:
    settings, hyperparameters, _ = _resolve(request, plan.train.rows)
    return Run(
        plan=plan,
        request=replace(request, backend=settings),
        hyperparameters=hyperparameters,
        selection=selection(request),
        folder=folder,
    )


def _resolve(request: Request, num_rows: int) -> backends.Resolved[BackendKeys]:
    backend, method = backends.load(request.backend.name), methods.load(request.method)
    return backend.resolve(request.backend, method, request.hyperparameters, num_rows)


def selection(request: Request) -> Selection:
    """Return which rows of which files a request wants."""
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
        in_order=not backends.load(request.backend.name).hosted,
        mix=mixture.read(dataset.mix or {}),
    )


def _identity(split: SplitSurvey) -> DataIdentity:
    return DataIdentity(rows=split.rows, fingerprint=split.fingerprint)


def _folder(request: Request, plan: Plan) -> Path:
    """Return the run's folder: the one that holds this plan already, under whatever name, or a new one."""
    runs = Path(request.runs_folder)
    name = request.name
    if name == "auto":  # what differs comes first: the same name is MLflow's, in a narrow column
        where = "hosted-" if backends.load(plan.backend).hosted else ""
        name = f"{where}{plan.method}-{data_name(request)}"
    # By the plan and not by the name: a request that was only renamed has been done already.
    return run_folders.of_plan(plan.id, runs) or run_folders.new(name, plan.id, runs)


def data_name(request: Request) -> str:
    """Return what a request's data is called: its file without endings."""
    train = request.dataset.train
    first = train if isinstance(train, str) else train[0]
    return safe_name(Path(first.rpartition(":")[2]).name.partition(".")[0]) or "data"


def count_tokens(proposal: Proposal) -> Tokens | None:
    """Return how many tokens the rows are, or None where the model's tokenizer is not on this machine."""
    counter = models.counter(proposal.run.plan.model.source)
    if counter is None:
        return None
    splits = proposal.survey.splits
    seen = backends.vision(proposal.run.request).tokens
    counted = {
        split: _count(proposal, split, lambda row: counter.tokens(row) + seen(row), counter.sample_rows)
        for split in splits
    }
    return Tokens(counted, all(split.rows <= counter.sample_rows for split in splits.values()))


def _count(proposal: Proposal, split: Split, count: Callable[[Row], int], sample_rows: int) -> int:
    # The first rows are a sample of all, as their order says nothing of their length.
    counted = [count(row) for row in islice(proposal.run.rows(split), sample_rows)]
    return round(sum(counted) / len(counted) * proposal.survey.splits[split].rows)


def total_cost(proposals: Iterable[Proposal]) -> Cost:
    """Return what runs take together: not known where one of them is not. Rows that they share are counted once."""
    counted: dict[str, Tokens | None] = {}
    found = Cost(0.0, 0.0)
    for proposal in proposals:
        plan = proposal.run.plan
        # Trials over the same rows count their tokens once.
        rows = repr((plan.model, plan.train, plan.validation))
        if rows not in counted:
            counted[rows] = count_tokens(proposal)
        found += backends.load(plan.backend).cost(proposal.run, counted[rows])
        found += Cost(0.0, judges.total(proposal.rehearsed))
    return found
