"""List what runs left at the hosted service and, after asking, remove it.

Only what a run's own journal says that it created is ever touched: deployments, then files. Files that a live
job still uses are kept. Tuned models and the jobs' records stay: they cost nothing.
"""

from pathlib import Path
from typing import Any

from runner import planning
from runner.errors import RequestError
from runner.execution import execute
from runner.jobs import hosted_runs
from runner.record import run_folders
from runner.record.events import Created, Removed
from runner.record.journal import Journal, RunState, read_state
from runner.terminal import cli, console

KINDS = ("deployment", "file")
"""What is removed, in this order."""


def main() -> None:
    """List, ask, remove; leave with 0, 1 (the service failed) or 2 (a wrong name or place)."""
    cli.main(_clean)


def _clean(arguments: list[str]) -> None:
    parser = cli.parser("runner.clean", __doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="runs by folder, name or plan id; without any all runs")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    given = parser.parse_args(arguments)
    folders = [run_folders.find(name, given.runs_folder) for name in given.runs]
    folders += [older for folder in folders for older in run_folders.set_aside(folder)]
    named = {folder: read_state(folder) for folder in folders}
    runs = named or hosted_runs(given.runs_folder)
    left = {folder: found for folder, known in runs.items() if (found := _left(known))}
    if not left:
        console.say("Nothing that these runs created is left at the service.")
        return
    rows = [[folder.name, each.what, each.id, _detail(each)] for folder, found in left.items() for each in found]
    console.table("Created by these runs", ["run", "what", "id", ""], rows)
    if not given.yes and not _agreed():
        console.say("Nothing was removed.")
        return
    for folder, found in left.items():
        with execute.alone(folder):
            _remove(folder, found)


def _demand_same_place(there: Any, known: RunState) -> None:
    """Raise `RequestError` where the environment leads to another place than that where the run created things."""
    places = [(known.results.get("upload", {}).get("endpoint"), there.endpoint)]
    made = [each.detail.get("account") for each in known.created.values() if each.what == "deployment"]
    places += [(account, there.control_plane.name) for account in made]
    for was, now in places:
        if was and was != now:
            raise RequestError(f"this run's things are at {was}, not at {now}; set the variables that lead there.")


def _left(known: RunState) -> list[Created]:
    found = [each for each in known.created.values() if each.what in KINDS]
    return sorted(found, key=lambda each: KINDS.index(each.what))


def _detail(created: Created) -> str:
    return ", ".join(f"{key} {value}" for key, value in created.detail.items())


def _agreed() -> bool:
    try:
        return input("Remove these from the service? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _remove(folder: Path, found: list[Created]) -> None:
    from runner.backends.foundry.connect import now, service
    from runner.backends.foundry.deployment import Deployer
    from runner.hosted.files import delete
    from runner.hosted.jobs import ENDED, listed

    there = service(planning.load(folder).request.backend)
    journal = Journal(folder / "journal.jsonl")
    _demand_same_place(there, journal.state)
    jobs = now(listed(there))
    used = {
        file: job.id for job in jobs if job.status not in ENDED for file in (job.training_file, job.validation_file)
    }
    for each in found:
        if each.what == "file" and each.id in used:
            console.say(f"kept: file {each.id}, which {used[each.id]} still uses")
            continue
        now(Deployer(there, each.id).remove() if each.what == "deployment" else delete(there, each.id))
        undone = "upload" if each.what == "file" and "create" not in journal.state.results else ""
        journal.add(Removed(each.what, each.id, "deploy" if each.what == "deployment" else undone))
        console.say(f"removed: {each.what} {each.id}")


if __name__ == "__main__":
    main()
