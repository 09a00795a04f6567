"""A promotion in order: compare, attach the evidence, move the deployment, move the alias. Each again does no harm.

The alias moves last: whoever asks for it meanwhile gets the model that had it before, whose deployment still answers.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from runner import backends, planning
from runner.backends import Deploys, StableDeployment
from runner.errors import RefusedError, RequestError
from runner.execution import execute
from runner.plan import Run
from runner.promotion import contenders, cost, decision, evidence, history
from runner.promotion.contenders import Contender
from runner.promotion.history import Move
from runner.promotion.keys import Keys
from runner.record.journal import read_state
from runner.record.outcome import saved
from runner.tracking.client import shown, store
from runner.tracking.registry import Deployment, Registry, Version, opened
from runner.tracking.sender import Position, position_of


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What came of it: the version that has the alias, and the sentences that say how that is."""

    version: Version
    sentences: tuple[str, ...]


def promote(run: Run, keys: Keys, runs: Path) -> Moved:
    """Give a run's model the alias, where it is better than what has it.

    Raises `RefusedError` with the sentence where it is not, `RequestError` where nothing can be compared.
    """
    tuned = contenders.of_run(run, run.folder.name)  # one that has not finished is refused by that
    if keys.deployment:  # refused, where it can have none, before a version is made
        _deployment(run, keys.deployment)
    with opened(store(run.request.tracking.uri)) as registry:
        position = _in_mlflow(run, registry)
        name = keys.name or run.request.tracking.register or planning.data_name(run.request)
        holder = registry.holder(name, keys.alias)
        if holder and holder.run_id == position.run_id:
            # The alias may have moved before the process could move the deployment: it is moved now.
            texts = _serve(registry, holder, run, keys)
            return Moved(version=holder, sentences=(f"{run.folder.name} has {name}@{keys.alias} already", *texts))
        found = _decide(registry, holder, run, tuned, keys, runs)
        if not found.promote:
            raise RefusedError(f"{run.folder.name} is not promoted to {name}@{keys.alias}: {found.why}.")
        # Only now: a run that is refused leaves no version behind.
        version = registry.register(name, position.run_id, position.model_id)
        with tempfile.TemporaryDirectory(prefix="runner-") as folder:
            evidence.write(Path(folder), run.folder, name, version.number, found)
            # Before the alias moves, so that whatever has it has its evidence.
            registry.attach(version, position.model_id, Path(folder), found.why)
        sentences = (found.why, *_serve(registry, version, run, keys))
        before = holder.number if holder else ""
        move = Move(at=time.time(), version=version.number, instead_of=before, why=found.why)
        registry.move(name, keys.alias, move)
        return Moved(version=version, sentences=sentences)


def go_back(keys: Keys, runs: Path) -> Moved:
    """Give the alias back to the version before, or to the one that is named."""
    with opened(store(None)) as registry:
        name = _named(registry, keys)
        holder = registry.holder(name, keys.alias)
        moves = registry.moves(name, keys.alias)
        number = str(keys.to) if keys.to else history.before(moves, holder.number if holder else "")
        version = registry.version(name, number) if number else None
        if version is None:
            wanted = f"there is no version {number}" if number else "nothing had it before"
            known = ", ".join(dict.fromkeys(each.version for each in moves)) or "none"
            raise RequestError(f"back: {name}@{keys.alias}: {wanted}; it was given to: {known}; name one with to=N.")
        if holder and holder.number == version.number:
            return Moved(version=version, sentences=(f"{version} has {name}@{keys.alias} already",))
        deployment = registry.deployment(name, keys.alias)
        sentences: tuple[str, ...] = ()
        # The folder is needed for a deployment alone: of a local model it may be gone.
        if deployment or keys.deployment:
            sentences = _serve(registry, version, planning.load(registry.folder(version, runs)), keys)
        before = holder.number if holder else ""
        registry.move(name, keys.alias, Move(at=time.time(), version=version.number, instead_of=before, back=True))
        return Moved(version=version, sentences=(f"back from version {before or 'none'}", *sentences))


def undeploy(keys: Keys, runs: Path) -> str:
    """Remove the deployment that callers use for an alias; return its name."""
    with opened(store(None)) as registry:
        name = _named(registry, keys)
        deployment = registry.deployment(name, keys.alias)
        if deployment is None:
            raise RequestError(f"undeploy: {name}@{keys.alias} has no deployment; deployment=NAME makes one.")
        run = planning.load(registry.folder(Version(name, "", deployment.run_id), runs))
        execute.to_its_end(_deployment(run, deployment.name).remove(), lambda event: None)
        registry.keep_deployment(name, keys.alias, None)
        return deployment.name


def shown_history(keys: Keys) -> tuple[str, list[list[str]]]:
    """Return the registered model and a line for each move of its alias: when, version, instead of, why."""
    with opened(store(None)) as registry:
        name = _named(registry, keys)
        holder, found = registry.holder(name, keys.alias), registry.moves(name, keys.alias)
        if not holder and not found:
            raise RequestError(
                f"history: nothing ever had {name}@{keys.alias}; look for another name=MODEL or as=ALIAS, or in "
                "another store (MLFLOW_TRACKING_URI)."
            )
        rows = []
        for number, move in enumerate(found):
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(move.at))
            now = number + 1 == len(found) and holder is not None and holder.number == move.version
            why = "went back" if move.back else move.why
            rows.append([when, move.version + " (now)" * now, move.instead_of or "none", why])
        return f"{name}@{keys.alias}", rows


def _in_mlflow(run: Run, registry: Registry) -> Position:
    position = position_of(run)
    # Asked for, too: of another folder's store the address is the same, as sqlite:///mlflow.db is the one of here.
    if not position.model_id or not registry.has(position.model_id):
        where = shown(store(run.request.tracking.uri))
        raise RequestError(
            f"{run.folder}: its model is not in MLflow ({where}), where models have their names; promote it "
            "in the folder where it was made, or give the run's command again with tracking=mlflow."
        )
    return position


def _decide(
    registry: Registry, holder: Version | None, run: Run, tuned: Contender, keys: Keys, runs: Path
) -> decision.Decision:
    if holder:
        one, other = tuned, contenders.load(registry.folder(holder, runs), f"version {holder.number}")
    else:
        one, other = contenders.base_of(run)
    return decision.decide(one, other, keys.metric, keys.no_worse_than, lambda: cost.cheaper(one, other))


def _named(registry: Registry, keys: Keys) -> str:
    """Return the registered model that is meant: the one named, else the only one that has the alias."""
    if keys.name is not None:
        return keys.name
    # With one in the store nobody has to remember what it is called.
    having = registry.named_with(keys.alias)
    if len(having) != 1:
        if not having:
            raise RequestError(
                f"as: no registered model has the alias {keys.alias}; promote a run first, or name another alias "
                "(as=ALIAS) or store (MLFLOW_TRACKING_URI)."
            )
        raise RequestError(
            f"name: {keys.alias} is an alias of several models: {', '.join(having)}; name=MODEL says which is meant."
        )
    return having[0]


def _serve(registry: Registry, version: Version, run: Run, keys: Keys) -> tuple[str, ...]:
    """Have the deployment that callers use answer with a version's model, where there is one; say so."""
    known = registry.deployment(version.name, keys.alias)
    name = keys.deployment or (known.name if known else None)
    if name is None:
        return ()
    deployment = _deployment(run, name)
    model = saved(read_state(run.folder).results["save"])["model"].removeprefix("hosted:")
    mine = known.models if known and known.name == name else []
    kept = Deployment(name=name, run_id=version.run_id, models=[*(each for each in mine if each != model), model])
    # Kept before it is asked for: a deployment costs by the hour, and one too many in the list is the lesser evil.
    registry.keep_deployment(version.name, keys.alias, kept)
    try:
        execute.to_its_end(deployment.answer_with(model, mine), lambda event: None)
    except RequestError:  # somebody else's: it was not touched
        registry.keep_deployment(version.name, keys.alias, known)
        raise
    before = f"; {mine[-1]} stays at the service" if mine and mine[-1] != model else ""
    return (f"deployment {name} answers with {model}{before}",)


def _deployment(run: Run, name: str) -> StableDeployment:
    backend = backends.of(run)
    if not isinstance(backend, Deploys):
        raise RequestError(f"deployment: got {name}, but a model of backend={backend.name} has none; leave it out.")
    return backend.stable_deployment(run, name)
