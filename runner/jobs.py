"""List the jobs and sessions of the services used here with their state, age and local run; or change some.

  python -m runner.jobs                    list them
  python -m runner.jobs cancel JOB …       the id of a job or session, or a run
  python -m runner.jobs copy RUN@STEP --to RESOURCE --region REGION
                                           a checkpoint to another resource;
                                           again: how far that is

The services are those of the newest runs here, else AZURE_AI_PROJECT_ENDPOINT (environment or .env).
"""

import time
from argparse import Namespace
from pathlib import Path

from runner import backends, planning
from runner.backends import Copying, Jobs
from runner.cost import duration
from runner.errors import RequestError, RunnerError
from runner.models import hosted_model
from runner.record import layout, run_folders
from runner.record.journal import RunState, read_state
from runner.terminal import cli, console

VERBS = ("cancel", "pause", "resume")
COPY = "copy"
IDS = ("ftjob-", "ft-", "sess-", "session_")
"""What the ids of jobs and sessions begin with."""


def main() -> None:
    """List the jobs, or do something to some; leave with 0, 1 (the service failed) or 2 (a wrong name or place)."""
    cli.main(_jobs)


def _jobs(arguments: list[str]) -> int:
    parser = cli.parser("runner.jobs", __doc__)
    parser.add_argument(
        "verb", nargs="?", choices=(*VERBS, COPY), help="what to do to the jobs; without it they are listed"
    )
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="a job's id; or a run by folder, name or plan id")
    parser.add_argument(
        "--to", metavar="RESOURCE", help="with copy: the other resource's id, /subscriptions/…/accounts/…"
    )
    parser.add_argument("--region", help="with copy: the region of that resource, such as westus3")
    given = parser.parse_args(arguments)
    if given.verb is None:
        _list(given.runs_folder)
        return 0
    if not given.jobs:
        parser.error(f"{given.verb}: no JOB is named")
    if (given.verb == COPY) != bool(given.to and given.region):
        parser.error("copy takes --to RESOURCE and --region REGION, the other verbs do not")
    return max(_tried(given, name) for name in given.jobs)


def _tried(given: Namespace, name: str) -> int:
    """Do something to one job; whatever becomes of it, the others are seen to as well."""
    try:
        if given.verb == COPY:
            _copy(name, given)
        else:
            _change(given.verb, name, given.runs_folder)
    except RunnerError as error:
        console.complain(str(error))
        return error.exit_code
    return 0


def hosted_runs(runs: Path) -> dict[Path, RunState]:
    """Return the folders of runs that have something to do with a hosted job, oldest first, with how far they are."""
    found = {folder: read_state(folder) for folder in run_folders.every(runs, set_aside=True)}
    return {
        folder: known for folder, known in found.items() if known.created or known.intents or "create" in known.results
    }


def _services(runs_folder: Path) -> list[Jobs]:
    """Return the jobs of each service that runs here have to do with, else of the hosted backend with its defaults."""
    planned = [planning.load(each) for each in hosted_runs(runs_folder) if (each / layout.REQUEST).exists()]
    # Of each backend the newest run says which service.
    newest = {run.plan.backend: run for run in planned}
    if newest:
        return [backends.of(run).jobs(run.request.backend) for run in newest.values()]
    # No run yet, so nothing says which service: the environment has to.
    hosted = next(found for name in backends.names() if (found := backends.load(name)).hosted)
    return [hosted.jobs(hosted.settings())]


def _list(runs_folder: Path) -> None:
    runs = hosted_runs(runs_folder)
    names = {known.job: folder.name for folder, known in runs.items()}
    # Where a service's list has no labels, a session is found by what the run's journal says of it.
    names |= {made.id: folder.name for folder, known in runs.items() for made in known.created.values()}
    # A run's folder ends with the first digits of its plan's id, which a session has as a label.
    plans = {folder.name[-run_folders.PLAN_ID_CHARACTERS :]: folder.name for folder in runs}
    for service in _services(runs_folder):
        rows = []
        for job in service.list():
            plan = job.plan_id[: run_folders.PLAN_ID_CHARACTERS]
            where = names.get(job.id) or plans.get(plan) or (f"plan {plan}, not here" if plan else "not the runner's")
            rows.append([job.id, job.state, duration(max(0.0, time.time() - job.created_at)), where, job.model])
        console.table(service.endpoint, ["job", "state", "age", "run", "model"], rows, fold=False)


def _change(verb: str, name: str, runs: Path) -> None:
    service, job = _found(name, runs)
    console.say(f"{job}: {service.change(verb, job)}")


def _copy(name: str, given: Namespace) -> None:
    """Have a checkpoint of a run copied: that of a step, or the last one."""
    run_name, _, step = name.partition("@")
    run = planning.load(run_folders.find(run_name, given.runs_folder))
    known = read_state(run.folder)
    service = backends.of(run).jobs(run.request.backend) if backends.of(run).hosted else None
    if not isinstance(service, Copying):
        raise RequestError(f"{name}: backend={run.plan.backend} copies no checkpoints.")
    found = {str(at): name for at, name in hosted_model.checkpoints(known.results).items()}
    if not found or (step and step not in found):
        raise RequestError(f"{name}: there is no such checkpoint; allowed: {', '.join(found) or 'none yet'}.")
    checkpoint = found[step or list(found)[-1]]
    console.say(f"{checkpoint}: {service.copy(known.job, checkpoint, given.to, given.region)}")


def _found(name: str, runs: Path) -> tuple[Jobs, str]:
    """Return the service and the id of a job or a session, by itself or by the run that it belongs to."""
    services = _services(runs)
    if name.startswith(IDS):
        # One service is not asked twice; of several the one that shows it is taken.
        known = (each for each in services if len(services) == 1 or any(job.id == name for job in each.list()))
        return next(known, services[-1]), name
    folder = run_folders.find(name, runs)
    known_state = read_state(folder)
    sessions = [made.id for made in known_state.created.values() if made.what == "session"]
    job = known_state.job or next(iter(sessions), "")
    if not job:
        raise RequestError(f"{name}: this run has no hosted job; python -m runner.jobs lists those there are.")
    run = planning.load(folder)
    return backends.of(run).jobs(run.request.backend), job


if __name__ == "__main__":
    main()
