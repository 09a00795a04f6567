"""One request, planned and carried out: what Hydra calls for a run, and for each trial of a sweep.

A launcher imports this module in processes of its own, on other machines too, and calls `task` there.
"""

import os
import platform
from dataclasses import replace
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import command, config, ranks
from runner.errors import EndedError, Pruned, RequestError, StopAsked

if TYPE_CHECKING:
    from runner.execute import Listener, Results
    from runner.plan import Job, Proposal

config.register()  # where a launcher has started this process, it composes a trial's request before it calls

ENDED: list[int] = []
"""The exit codes of what this process has been given."""


def task(composed: Any) -> int:
    """Plan and execute one composed request; return its exit code, so that a sweep's other trials go on.

    Once asked to stop, a process begins nothing more.
    """
    if StopAsked.exit_code not in ENDED:
        ENDED.append(command.guarded(lambda: _arrive_and_do(composed)))
    return ENDED[-1]


def _arrive_and_do(composed: Any) -> None:
    _arrive()
    if ranks.here().first:
        plan_and_run(composed)
    else:
        help_with(composed)


def _arrive() -> None:
    """Go where the command was typed, so that its paths and its `.env` are the same here."""
    from hydra.core.hydra_config import HydraConfig

    from runner import console

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
        command.read_dotenv()


def plan_and_run(composed: Any) -> None:
    """Check a request and make its plan; with `mode=run`, carry it out unless that was done before."""
    from runner import console, estimate, execute, sweeps

    proposal = _plan(composed)
    job = proposal.job
    finished = execute.finished(job) is not None
    anew = job.request.top.again and (finished or execute.stuck(job))
    done = finished and not anew
    if job.request.top.sweep:
        console.show_trial_begun(job, sweeps.called(job) or _typed())
    else:
        console.show_plan(proposal, done, estimate.tokens(proposal))
    if job.request.top.mode == "run":
        if not job.request.top.sweep and not done:  # of a sweep's price the sweep has asked
            console.demand_price(estimate.together([proposal]).dollars, job.request.top.max_price)
        _point_to(job)
        if anew:
            execute.set_aside(job.folder)
        try:
            run(job, train=not done)
        except EndedError:
            if anew or not job.request.top.again:
                raise
            execute.set_aside(job.folder)  # only now is it known that the hosted job has ended
            run(job)


def run(job: "Job", train: bool = True) -> None:
    """Execute a job, followed by MLflow and the terminal, and report it. Without `train` MLflow only catches up."""
    from runner import console, execute, report
    from runner.follower import Follower
    from runner.live import Live

    with execute.alone(job.folder), ranks.joined(job.plan.id) as world:
        world.tell((job.folder, train))
        follower = Follower([job])
        outcome = report.Outcome("finished")
        try:
            if train:
                with Live() as live:
                    outcome = report.outcome(job, _execute(job, live))
        except Pruned as end:
            outcome = report.failure(end)
        except BaseException as error:
            outcome = report.failure(error)
            raise
        finally:
            content = None if train else report.read(job.folder)
            content = content or report.write(job, outcome)
            place = follower.finish(job, outcome.status)
            follower.end()
            show = console.show_trial if job.request.top.sweep else console.show_outcome
            show(job, content, place, follower.problem(job))


def _execute(job: "Job", listener: "Listener") -> "Results":
    """Execute a job; one that a search has proposed is given up where that search says so."""
    from runner import execute

    if job.request.top.search is None:
        return execute.execute(job, listener)
    from runner.sweeps.study import Pruner

    pruner = Pruner(job.request.top.search, listener)
    return execute.execute(job, pruner, pruner.reason)


def help_with(composed: Any) -> None:
    """Do another process's part in what the first one carries out: the same steps, of which nothing is told or kept."""
    from runner import execute

    job = _plan(composed).job
    if job.request.top.mode == "run":
        with ranks.joined(job.plan.id) as world:
            folder, train = world.tell(None)
            if train:
                execute.assist(replace(job, folder=folder))


def _plan(composed: Any) -> "Proposal":
    """Check a request and make its plan."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from runner import plan, waiting

    if ranks.here().count > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise RequestError(
            "torchrun: runs one request at a time; give a sweep (-m) without it, or each trial by itself."
        )
    request = config.request(OmegaConf.to_container(composed, resolve=True))
    with waiting.checking_data() as report:
        return plan.make(request, report=report)


def _typed() -> str:
    """Return what was typed for this trial."""
    from hydra.core.hydra_config import HydraConfig

    return " ".join(each for each in HydraConfig.get().overrides.task if not each.startswith(("sweep=", "search=")))


def _point_to(job: "Job") -> None:
    """Leave in Hydra's own output folder where the run lives."""
    from hydra.core.hydra_config import HydraConfig

    Path(HydraConfig.get().runtime.output_dir, "run.txt").write_text(f"{job.folder.resolve()}\n", "utf-8")
