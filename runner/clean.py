"""List what runs left at the hosted service and, after asking, remove it.

Only what a run's own journal says that it created is ever touched: deployments, then files. Files that a live
job still uses are kept. Tuned models and the jobs' records stay: they cost nothing.
"""

from runner import backends, planning
from runner.execution import execute
from runner.jobs import hosted_runs
from runner.plan import Run
from runner.record import layout, run_folders
from runner.record.events import Created, Removed
from runner.record.journal import Journal, read_state
from runner.terminal import cli, console


def main() -> None:
    """List, ask, remove; leave with 0, 1 (the service failed) or 2 (a wrong name or place)."""
    cli.main(_clean)


def _clean(arguments: list[str]) -> None:
    parser = cli.parser("runner.clean", __doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="runs by folder, name or plan id; without any all runs")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    given = parser.parse_args(arguments)
    folders = [run_folders.find(name, given.runs_folder) for name in given.runs]
    # What `again=true` has set aside may have left files and deployments, too.
    folders += [older for folder in folders for older in run_folders.set_aside(folder)]
    runs = [planning.load(folder) for folder in folders or hosted_runs(given.runs_folder)]
    left = [(run, found) for run in runs if (found := backends.of(run).leftovers(read_state(run.folder)))]
    if not left:
        console.say("Nothing that these runs created is left at the service.")
        return
    rows = [[run.folder.name, each.what, each.id, _detail(each)] for run, found in left for each in found]
    console.table("Created by these runs", ["run", "what", "id", ""], rows)
    if not given.yes and not cli.agreed("Remove these from the service? [y/N] "):
        console.say("Nothing was removed.")
        return
    for run, _ in left:
        # A live run would find gone what it has just made.
        with execute.alone(run.folder):
            _remove(run)


def _detail(created: Created) -> str:
    return ", ".join(f"{key} {value}" for key, value in created.detail.items())


def _remove(run: Run) -> None:
    """Remove what a run left, and note in its journal what is gone."""
    backend, journal = backends.of(run), Journal(run.folder / layout.JOURNAL)
    for removal in backend.remove(run, journal.state, backend.leftovers(journal.state)):
        each = removal.created
        if removal.used_by:
            console.say(f"kept: {each.what} {each.id}, which {removal.used_by} still uses")
        else:
            journal.add(Removed(each.what, each.id, removal.undoes))
            console.say(f"removed: {each.what} {each.id}")


if __name__ == "__main__":
    main()
