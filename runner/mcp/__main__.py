"""Serve the runner to an agent by the Model Context Protocol, on standard input and output.

  claude mcp add runner -- .venv/bin/python -m runner.mcp

or, in a client's JSON of servers: {"runner": {"command": ".venv/bin/python", "args": ["-m", "runner.mcp"]}}. Files and
runs are those of the folder in which it is started. Its tools are plan, run, status, compare and read_report. A run is
dry unless the agent says otherwise; one that costs money needs a `max_price`, and stops or is refused above it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from runner import __version__
from runner.errors import RequestError
from runner.mcp import requested, runs
from runner.mcp.requested import Planned
from runner.mcp.runs import Status
from runner.terminal import cli

if TYPE_CHECKING:
    from mcp.server import MCPServer

INSTRUCTIONS = """Fine-tuning experiments. A request is a list of overrides, as on the runner's command line: \
["method=dpo", "dataset=files", "dataset.train=pairs.jsonl", "dataset.validation_fraction=0.1", "dpo.beta=0.05"]. \
Make its plan first, and show findings and price to the person; then run it with dry=false, and ask for its status. \
The same request resumes what was stopped, and answers at once where it is finished."""
_COMPOSING = Lock()
"""Tools are called on threads, and Hydra composes one request at a time."""


def main() -> None:
    """Serve until the client closes the connection; leave with 0, or 2 where the SDK is not installed."""
    cli.main(_serve)


def _serve(arguments: list[str]) -> None:
    asked = cli.parser("runner.mcp", __doc__).parse_args(arguments)
    try:
        import mcp  # noqa: F401
    except ImportError as error:
        raise RequestError("runner.mcp: needs the package mcp; pip install 'runner[mcp]'.") from error
    # Standard output is the connection: nothing else may be printed while it serves.
    server(asked.runs_folder).run("stdio")


def server(runs_folder: Path) -> "MCPServer[None]":
    """Return the server with its tools, over the runs of a folder."""
    from mcp.server import MCPServer
    from mcp_types import ToolAnnotations

    made: MCPServer[None] = MCPServer("runner", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING")
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    def plan(overrides: list[str]) -> Planned:
        """Check a request and return its plan: rows, resolved keys with reasons, findings, price. Creates nothing."""
        with _sentences():
            return _planned(overrides, runs_folder)

    def run(overrides: list[str], dry: bool = True, max_price: float | None = None) -> Planned | Status:
        """Start a request in the background. With dry=true (the default) only its plan is returned.

        max_price, in dollars, is required for anything that costs money. The run's folder is what status takes.
        """
        with _sentences():
            return _run(overrides, dry, max_price, runs_folder)

    def status(run: str | None = None) -> list[Status]:
        """Say how far a run has come, by its folder, its name or the start of its plan id; without it, all runs."""
        with _sentences():
            return [runs.status(_folder(run, runs_folder))] if run else runs.every(runs_folder)

    def compare(runs: list[str], metric: list[str] | None = None, margin: float | None = None) -> dict[str, object]:
        """Compare finished runs, or the models of an evaluation, with confidence intervals, row by row.

        metric: eval/loss, eval/GRADER, or graders for every one. margin: say which is no worse by more than that.
        """
        with _sentences():
            return _compare([_folder(each, runs_folder) for each in runs], metric, margin)

    def read_report(run: str) -> str:
        """Return a run's report as Markdown: outcome, metrics, graders with intervals, answers before and after."""
        with _sentences():
            return runs.report(_folder(run, runs_folder))

    for tool in (plan, status, compare, read_report):
        made.add_tool(tool, annotations=reads)
    made.add_tool(run, annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True))
    return made


@contextmanager
def _sentences() -> Iterator[None]:
    """Answer a user's mistake with its sentence; the SDK hides the text of any other exception from the agent."""
    from mcp.server.mcpserver.exceptions import ToolError

    from runner.request import hydra_errors

    try:
        yield
    except Exception as error:
        sentence = hydra_errors.sentence(error)
        if sentence is None:
            raise
        raise ToolError(str(sentence)) from error


def _planned(overrides: Sequence[str], runs_folder: Path) -> Planned:
    with _COMPOSING:
        return requested.planned(requested.proposal([*overrides, f"runs_folder={runs_folder}"], dry=True))


def _run(overrides: Sequence[str], dry: bool, max_price: float | None, runs_folder: Path) -> Planned | Status:
    whole = [*overrides, f"runs_folder={runs_folder}"]
    # With the folder of this server in the request, as the run's own process may have another default.
    with _COMPOSING:
        found = requested.proposal(whole, dry)
        plan, request = requested.planned(found), found.run.request
        if dry or (plan.state == "finished" and not request.again):
            return plan
        requested.require_price(request, plan.dollars, max_price)
        # Within the lock: of two calls with one request the second finds the first one's process.
        if not runs.is_running(found.run.folder):
            runs.start(found.run.folder, whole, max_price)
    return runs.status(found.run.folder)


def _folder(name: str, runs_folder: Path) -> Path:
    from runner.record import layout, run_folders

    # One that has just been started has no journal yet, and an evaluation never has one, by which runs are found.
    places = [(Path(name), layout.OUTPUT), (Path(name), layout.EVALUATION)]
    places += [(run_folders.evaluations_in(runs_folder) / name, layout.EVALUATION)]
    known = next((folder for folder, file in places if (folder / file).exists()), None)
    return known or run_folders.find(name, runs_folder)


def _compare(folders: Sequence[Path], metric: Sequence[str] | None, margin: float | None) -> dict[str, object]:
    from runner.compare import verdict
    from runner.compare.models import compare_folders

    return {**verdict.as_json(compare_folders(folders, metric, margin))}


if __name__ == "__main__":
    main()
