"""List the hosted service's jobs with their state, age and local run; or cancel, pause or resume some.

  python -m runner.jobs                    list them
  python -m runner.jobs cancel JOB …       JOB is a job's id, or a run

The endpoint is that of the newest hosted run here, else AZURE_AI_PROJECT_ENDPOINT (environment or .env).
"""

import time
from pathlib import Path

from runner import backends, planning
from runner.backends import Jobs
from runner.cost import duration
from runner.errors import RequestError, RunnerError
from runner.record import layout, run_folders
from runner.record.journal import RunState, read_state
from runner.terminal import cli, console

VERBS = ("cancel", "pause", "resume")


def main() -> None:
    """List the jobs, or do something to some; leave with 0, 1 (the service failed) or 2 (a wrong name or place)."""
    cli.main(_jobs)


def _jobs(arguments: list[str]) -> int:
    parser = cli.parser("runner.jobs", __doc__)
    parser.add_argument("verb", nargs="?", choices=VERBS, help="what to do to the jobs; without it they are listed")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="a job's id; or a run by folder, name or plan id")
    given = parser.parse_args(arguments)
    if given.verb is None:
        _list(given.runs_folder)
        return 0
    if not given.jobs:
        parser.error(f"{given.verb}: no JOB is named")
    return max(_tried(given.verb, name, given.runs_folder) for name in given.jobs)


def _tried(verb: str, name: str, runs: Path) -> int:
    """Do something to one job; whatever becomes of it, the others are seen to as well."""
    try:
        _change(verb, name, runs)
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


def _service(runs_folder: Path) -> Jobs:
    """Return the jobs of the service of the newest hosted run, else of the hosted backend with its defaults."""
    planned = [folder for folder in hosted_runs(runs_folder) if (folder / layout.REQUEST).exists()]
    if planned:
        run = planning.load(planned[-1])
        return backends.of(run).jobs(run.request.backend)
    # No run yet, so nothing says which service: the environment has to.
    hosted = next(found for name in backends.names() if (found := backends.load(name)).hosted)
    return hosted.jobs(hosted.settings())


def _list(runs_folder: Path) -> None:
    service = _service(runs_folder)
    names = {known.job: folder.name for folder, known in hosted_runs(runs_folder).items()}
    rows = []
    for job in service.list():
        where = names.get(job.id) or (f"plan {job.plan_id[:8]}, not here" if job.plan_id else "not the runner's")
        rows.append([job.id, job.state, duration(max(0.0, time.time() - job.created_at)), where, job.model])
    console.table(service.endpoint, ["job", "state", "age", "run", "model"], rows, fold=False)


def _change(verb: str, name: str, runs: Path) -> None:
    service, job = _service(runs), _job(name, runs)
    console.say(f"{job}: {service.change(verb, job)}")


def _job(name: str, runs: Path) -> str:
    """Return a job's id by itself or by the run that follows it."""
    if name.startswith(("ftjob-", "ft-")):
        return name
    folder = run_folders.find(name, runs)
    job = read_state(folder).job
    if not job:
        raise RequestError(f"{name}: this run has no hosted job; python -m runner.jobs lists those there are.")
    return job


if __name__ == "__main__":
    main()
