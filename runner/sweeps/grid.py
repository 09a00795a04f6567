"""A grid: every combination of the values given, planned whole before the first one starts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from runner.errors import StopAsked
from runner.execution import execute
from runner.sweeps import Compose, Sweep, Trial, distinct, identity, keep, make, objective, summary
from runner.terminal import console
from runner.terminal.trials import Board
from runner.tracking.sweep_run import Parent

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

Launch = Callable[[list[list[str]]], "Sequence[JobReturn]"]


def run(trials: Sequence[Sequence[str]], compose: Compose, launch: Launch, metric: str | None) -> None:
    """Plan trials given by their overrides, launch those that are not finished, and sum them up by a metric.

    Raises `RequestError` where one of them is wrong, before any starts, and `TrialsError` where some failed.
    """
    made = distinct(make([list(each) for each in trials], compose))
    if metric is not None:
        objective.demand(metric, made)
    sweep = Sweep(trials=made, id=identity(*sorted(each.known_as for each in made)))
    finished = {name for name, run in sweep.runs.items() if execute.finished(run) is not None}
    # Finished trials are not even launched: on a cluster each would wait for its turn first.
    todo = [each for each in sweep.trials if each.name not in finished or each.request.again]
    summary.show_plan(sweep, finished)
    summary.show_forecast(todo)
    if sweep.request.mode == "plan":
        return
    summary.confirm_price(todo)
    keep(sweep)
    parent = Parent(sweep)
    parent.open()
    with Board(sweep.runs):
        codes = launched(launch, sweep.id, todo) if todo else {}
    # Planned again, all of them: that costs little, as data and tokens are known.
    if len(sweep.runs) < len(sweep.trials):  # by now there is a model to continue from
        sweep = replace(sweep, trials=distinct(make([list(each) for each in trials], compose)))
    summary.conclude(sweep, parent, codes, metric)


def launched(launch: Launch, sweep_id: str, trials: Sequence[Trial]) -> dict[str, int]:
    """Give trials to the launcher; return each one's exit code, taken from its records where the launcher broke off."""
    try:
        # `sweep` says where a trial, which may start on another machine, belongs; it is no part of its plan.
        returned = launch([[*each.overrides, f"sweep={sweep_id}"] for each in trials])
    except KeyboardInterrupt:  # a launcher that waits for other processes leaves it to us
        return {each.name: StopAsked.exit_code * _unfinished(each) for each in trials}
    # Launchers raise what their own libraries raise (joblib, submitit, Ray); records show which trials came
    # to their end.
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        console.complain(f"the launcher broke off ({type(error).__name__}: {first}); what is finished is kept.")
        return {each.name: int(_unfinished(each)) for each in trials}
    return {trial.name: int(each.return_value) for trial, each in zip(trials, returned, strict=True)}


def _unfinished(trial: Trial) -> bool:
    return trial.run is None or execute.finished(trial.run) is None
