"""`python -m runner`: compose a request, plan it, execute it. The whole story is on this screen."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runner import command, config, ranks
from runner.errors import EndedError, RequestError, StopAsked

if TYPE_CHECKING:
    from runner.plan import Job, Proposal


def main() -> None:
    """Run the command line; leave with 0, 1 (failed), 2 (wrong request or data) or 130 (stopped)."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that its errors reach us and not its own printer
    import hydra

    config.register()
    # argparse takes no overrides before a flag: `mode=plan -m seed=1,2` would be refused.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda each: each not in ("-m", "--multirun"))
    codes: list[int] = [_guarded(_refuse_secrets), _guarded(command.read_dotenv)]
    if any(codes):
        _leave(codes)
    if not ranks.here().first:
        _be_silent()
    conf = str(config.home() / "conf")

    def trial(composed: Any) -> int:
        if StopAsked.exit_code not in codes:  # of a sweep that was asked to stop nothing more is begun
            codes.append(_trial(composed))
        return codes[-1]

    codes.append(_guarded(hydra.main(version_base="1.3", config_path=conf, config_name="config")(trial)))
    _leave(codes)


def _leave(codes: list[int]) -> NoReturn:
    ranks.end(max(codes))
    sys.exit(max(codes))


def _be_silent() -> None:
    """Leave Hydra's folder and standard output to the first process."""
    sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (to the end)


def _refuse_secrets() -> None:
    """Raise before Hydra writes into its folder what was typed."""
    for argument in sys.argv[1:]:
        key = argument.partition("=")[0].strip("'+")
        if config.holds_password(argument) or config.names_secret(key):
            raise RequestError(f"{key}: a secret is never typed or kept in YAML; put it into .env.")


def _guarded(work: Any) -> int:
    """Do some work and return the exit code; a user's mistake is told in a sentence, a bug with its traceback."""
    try:
        work()
    except KeyboardInterrupt:
        return StopAsked.exit_code
    except Exception as error:
        from runner import composition, console

        told = composition.sentence(error)
        if told is None:
            raise
        if ranks.speaks(str(told)):
            console.complain(str(told))
        return told.exit_code
    return 0


def _trial(composed: Any) -> int:
    """Plan and execute one composed request; in a sweep the others go on, whatever becomes of it."""
    return _guarded(lambda: plan_and_run(composed) if ranks.here().first else help_with(composed))


def plan_and_run(composed: Any) -> None:
    """Check a request and make its plan; with `mode=run`, carry it out unless that was done before."""
    from runner import console, estimate, execute

    proposal = _plan(composed)
    job = proposal.job
    finished = execute.finished(job) is not None
    anew = job.request.top.again and (finished or execute.stuck(job))
    done = finished and not anew
    if job.request.top.sweep:
        console.show_trial_begun(job, _typed())
    else:
        console.show_plan(proposal, done, estimate.tokens(proposal))
    if job.request.top.mode == "run":
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
                    outcome = report.outcome(job, execute.execute(job, live))
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

    from runner import plan

    if ranks.here().count > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise RequestError(
            "torchrun: runs one request at a time; give a sweep (-m) without it, or each trial by itself."
        )
    return plan.make(config.request(OmegaConf.to_container(composed, resolve=True)))


def _typed() -> str:
    """Return what was typed for this trial."""
    from hydra.core.hydra_config import HydraConfig

    return " ".join(each for each in HydraConfig.get().overrides.task if not each.startswith("sweep="))


def _point_to(job: "Job") -> None:
    """Leave in Hydra's own output folder where the run lives."""
    from hydra.core.hydra_config import HydraConfig

    Path(HydraConfig.get().runtime.output_dir, "run.txt").write_text(f"{job.folder.resolve()}\n", "utf-8")


if __name__ == "__main__":
    main()
