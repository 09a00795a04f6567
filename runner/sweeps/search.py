"""A search: Optuna proposes a few trials at a time, from the results of earlier ones; the rest is as in any sweep.

    space → its ends are planned → study → proposed → launched → reported → proposed → … → compared

Optuna is used by its own ask-and-tell interface, not through Hydra's plugin for it: that one is pinned to an Optuna
whose storage fails with today's SQLAlchemy, keeps no search across commands unless given a database, and cannot prune.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from runner import planning
from runner.compare import results
from runner.compare.difference import lower_is_better
from runner.errors import RequestError, StopAsked
from runner.record import layout
from runner.sweeps import Compose, Sweep, Trial, distinct, identity, keep, make, objective, summary
from runner.sweeps.grid import Launch, launched
from runner.sweeps.optuna_study import SearchKeys, Settings, Space, Study, space
from runner.terminal import console
from runner.terminal.trials import Board
from runner.tracking.sweep_run import Parent

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def run(
    overrides: Sequence["Override"], metric: str | None, asked: SearchKeys, compose: Compose, launch: Launch
) -> None:
    """Search what overrides span for the best `metric`; launch trials until there are enough, and sum them up.

    Raises `RequestError` where an end of what is searched would be refused, and `TrialsError` where trials failed.
    """
    if find_spec("optuna") is None:
        raise RequestError("hydra/sweeper=optuna: needs the package optuna; pip install 'runner[sweeps]'.")
    wanted, known = space(overrides), planning.PlanCache()
    # The extremes of each key are planned before anything starts: a value that is refused shows here, not as
    # the tenth trial.
    ends = make(list(wanted.ends()), compose, known)
    settings = Settings(metric=metric or objective.usual(ends[0]), **asked)
    objective.demand(settings.metric, ends)
    sweep = Sweep(trials=ends, id=_identity(ends, wanted, settings))
    # Nobody knows what will be proposed: the price asked about is that of the most expensive end, for every trial.
    most_expensive = max(ends, key=_dollars)
    _show(sweep, wanted, settings)
    summary.show_forecast([most_expensive] * settings.n_trials)
    if sweep.request.mode == "plan":
        return
    summary.confirm_price([most_expensive] * settings.n_trials)
    path = sweep.folder / layout.STUDY
    parent, study = Parent(sweep), Study(path, wanted, settings)
    parent.open()
    codes: dict[str, int] = {}
    # A search that is resumed: its trials are known by the study's file.
    begun = distinct(make(study.proposed(), compose, known, wanted.fixed))
    # Trials that failed are asked for no second time in this command (`Study.next`); the same command tries
    # them again.
    while StopAsked.exit_code not in codes.values() and (proposed := study.next()):
        trials = make(list(proposed.values()), compose, known, wanted.fixed)
        begun = distinct([*begun, *trials])
        sweep = replace(sweep, trials=begun)
        keep(sweep)
        with Board(sweep.runs):
            codes |= launched(launch, sweep.id, distinct(_with_study(path, proposed, trials)))
        for number, trial in zip(proposed, trials, strict=True):
            _report(study, number, trial, settings.metric)
    summary.conclude(replace(sweep, trials=begun), parent, codes, settings.metric)


def _identity(ends: Sequence[Trial], wanted: Space, settings: Settings) -> str:
    """Return the id of a search: more trials of the same are the same search."""
    # Not n_trials or n_jobs: asking for more continues the search.
    how = [settings.metric, settings.sampler, settings.pruner, str(settings.seed)]
    return identity(*(each.known_as for each in ends), repr(sorted(wanted.free.items())), *how)


def _with_study(path: Path, numbers: Iterable[int], trials: Sequence[Trial]) -> list[Trial]:
    """Return trials that know of the study and of their number in it, so that they can be given up."""
    return [
        replace(each, overrides=(*each.overrides, f"search='{path}#{number}'"))
        for number, each in zip(numbers, trials, strict=True)
    ]


def _dollars(trial: Trial) -> float:
    return planning.total_cost([trial.proposal]).dollars or 0.0 if trial.proposal else 0.0


def _show(sweep: Sweep, wanted: Space, settings: Settings) -> None:
    extreme = "least" if lower_is_better(settings.metric) else "greatest"
    title = f"{sweep.folder.name}: a search of {settings.n_trials} trials for the {extreme} {settings.metric}"
    how = f"{settings.sampler}, pruner {settings.pruner}, {settings.n_jobs} at a time"
    rows = [[key, str(kind)] for key, kind in wanted.free.items()]
    console.table(title, ["key", "searched in"], [*rows, ["", how]], fold=False)


def _report(study: Study, number: int, trial: Trial, metric: str) -> None:
    """Report a trial's result to the study, if it has one."""
    # Never begun, so there is nothing to report; the next command takes it up.
    if trial.run is None or not (trial.run.folder / layout.PLAN).exists():
        return
    result = results.read(trial.run.folder)
    if result.status == "pruned":
        study.tell(number, None)
    elif result.status == "finished" and metric in result.metrics:
        study.tell(number, result.metrics[metric])
