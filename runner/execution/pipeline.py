"""One request planned and executed: what Hydra calls for a run, and for each trial of a sweep.

A launcher imports this module in processes of its own, on other machines too, and calls `task` there.
"""

import gc
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner import backends, distributed
from runner.errors import EndedError, Pruned, RequestError, StopAsked
from runner.request import check, hydra_config
from runner.terminal import cli

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from runner.execution.execute import Listener, Results
    from runner.plan import Proposal, Run

hydra_config.register()  # where a launcher has started this process, it composes a trial's request before it calls

# A list of the module, as `hydra.main` returns nothing and a launcher's own results do not reach `__main__`.
ENDED: list[int] = []
"""The exit codes of what this process has been given."""


def task(composed: "DictConfig") -> int:
    """Plan and execute one composed request; return its exit code, so that a sweep's other trials continue.

    Once asked to stop, a process begins nothing more.
    """
    if StopAsked.exit_code not in ENDED:
        ENDED.append(cli.guarded(lambda: _arrive_and_do(composed)))
    return ENDED[-1]


def _arrive_and_do(composed: "DictConfig") -> None:
    _arrive()
    if distributed.this_rank().first:
        plan_and_run(composed)
    else:
        help_with(composed)


def _arrive() -> None:
    """Go where the command was typed, so that its paths and its `.env` are the same here."""
    from multiprocessing import parent_process

    from hydra.core.hydra_config import HydraConfig

    from runner.terminal import console

    if parent_process() is not None and console.terminal.is_terminal:
        console.terminal.quiet = True  # the process that launched this one shows it in its table
    typed_in = Path(HydraConfig.get().runtime.cwd)
    if Path.cwd() != typed_in:
        if not typed_in.is_dir():
            raise RequestError(
                f"{typed_in}: there is no such folder on {platform.node()}; trials on several machines need one "
                "that all of them see, at the same place."
            )
        os.chdir(typed_in)
        cli.read_dotenv()


def plan_and_run(composed: "DictConfig") -> None:
    """Check a request and make its plan; with `mode=run`, carry it out unless that was done before."""
    from runner import planning
    from runner.execution import execute
    from runner.terminal import console, shown_rows

    proposal = _plan(composed)
    run = proposal.run
    finished = execute.finished(run) is not None
    rerun = run.request.again and (finished or execute.stuck(run))
    done = finished and not rerun
    if run.request.sweep:
        console.show_trial_begun(run, run.trial_name or _typed())
    else:
        console.show_plan(proposal, done, planning.count_tokens(proposal))
        if run.request.show:
            shown_rows.show_rows(run, run.request.show)
    if run.request.rehearse and done:
        console.say("note: rehearse=true: the run was finished before, so that nothing is rehearsed; again=true does")
    elif run.request.rehearse:
        _rehearse_base(run)
    if run.request.mode == "run":
        asks = not run.request.sweep and not backends.of(run).stops_at_price  # of a sweep's price the sweep has asked
        if asks and not done:
            console.confirm_price(planning.total_cost([proposal]).dollars, run.request.max_price)
        _point_to(run)
        if rerun:
            execute.set_aside(run.folder)
        try:
            run_and_report(run, train=not done)
        except EndedError:
            if rerun or not run.request.again:
                raise
            execute.set_aside(run.folder)  # only now is it known that the hosted job has ended
            run_and_report(run)


def _rehearse_base(run: "Run") -> None:
    """Let the base model answer some prompts several times, and print how it does by each grader."""
    from runner.evaluation.rehearsal import base_model
    from runner.execution import execute
    from runner.judging.price import total as price_total
    from runner.record.journal import Record
    from runner.terminal import console
    from runner.terminal.progress import Live

    planned = base_model.plan(run)
    if isinstance(planned, str):
        console.say(f"note: rehearse=true: {planned}")
        return
    prices = base_model.prices(planned)
    for name, price in prices.items():
        console.say(f"rehearsal, grader {name}: {price.sentence}")
    console.confirm_price(price_total(prices.values()), run.request.max_price)
    with execute.alone(planned.folder), Live() as live:
        found = execute.to_its_end(base_model.carry_out(planned), lambda event: live(Record(time.time(), event)))
    console.show_base_scores(found)


def run_and_report(run: "Run", train: bool = True) -> None:
    """Execute a run, followed by MLflow and the terminal, and report it. Without `train` MLflow only catches up."""
    from runner.execution import execute, report
    from runner.record import outcome as record_outcome
    from runner.terminal import console
    from runner.terminal.progress import Live
    from runner.tracking.follower import Follower

    with execute.alone(run.folder), distributed.joined(run.plan.id) as group:
        # The other ranks have made the same plan, but only this one has looked at what is done, and where.
        group.broadcast((run.folder, train))
        follower = Follower([run])
        outcome = report.Outcome("finished")
        try:
            if train:
                with Live() as live:
                    outcome = report.outcome(run, _execute(run, live))
        # Of a search, no failure: the trial's code stays 0, so that its sweep ends well.
        except Pruned as end:
            outcome = report.failure(end)
        except BaseException as error:
            outcome = report.failure(error)
            raise
        finally:
            # A finished run keeps its report: versions and times there are those of the training.
            content = None if train else record_outcome.read(run.folder)
            content = content or report.write(run, outcome)
            position = follower.finish(run, outcome.status)
            follower.end()
            show = console.show_trial if run.request.sweep else console.show_outcome
            show(run, content, position, follower.problem(run))


def _execute(run: "Run", listener: "Listener") -> "Results":
    """Execute a run; one that a search has proposed is given up where that search says so."""
    from runner.execution import execute

    if run.request.search is None:
        return execute.execute(run, listener)
    from runner.sweeps.optuna_study import Pruner

    pruner = Pruner(run.request.search, listener)
    return execute.execute(run, pruner, pruner.reason)


def help_with(composed: "DictConfig") -> None:
    """Execute the same steps as rank 0 on another rank; write and print nothing."""
    from runner.execution import execute

    run = _plan(composed).run
    if run.request.mode == "run":
        with distributed.joined(run.plan.id) as group:
            folder, train = group.broadcast(None)
            if train:
                execute.assist(replace(run, folder=folder))


def _plan(composed: "DictConfig") -> "Proposal":
    """Check a request and make its plan."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from runner import planning
    from runner.terminal import check_progress

    if distributed.this_rank().world_size > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise RequestError(
            "torchrun: runs one request at a time; give a sweep (-m) without it, or each trial by itself."
        )
    request = check.request(OmegaConf.to_container(composed, resolve=True))
    with check_progress.checking_data() as report:
        proposal = planning.make(request, report=report)
    gc.enable()  # off until here where `python -m runner` has started this process
    return proposal


def _typed() -> str:
    """Return what was typed for this trial."""
    from hydra.core.hydra_config import HydraConfig

    return " ".join(each for each in HydraConfig.get().overrides.task if not each.startswith(("sweep=", "search=")))


def _point_to(run: "Run") -> None:
    """Leave in Hydra's own output folder where the run lives."""
    from hydra.core.hydra_config import HydraConfig

    Path(HydraConfig.get().runtime.output_dir, "run.txt").write_text(f"{run.folder.resolve()}\n", "utf-8")
