"""Compare runs: what differs between them, how they came out, and whether that is chance.

  python -m runner.compare                   the newest sweep
  python -m runner.compare SWEEP             by its folder or its name
  python -m runner.compare RUN RUN …         by folder, name or plan id
  python -m runner.compare RUN               with its own base model
  python -m runner.compare EVALUATION …      the models of an evaluation
  python -m runner.compare RUN RUN --metric graders --margin 0.02
                                             by every grader; the margin: is
                                             one no worse by more than that?
  python -m runner.compare --repeat RUN      the command that makes it again,
                                             and what has changed since
  python -m runner.compare --experiment NAME --filter "metrics.`eval/loss` < 1"
                                             runs of an MLflow experiment

The comparison of a sweep or an evaluation is also written into its own folder, as comparison.json, .md, .html and .png.
"""

import argparse
import sys
from pathlib import Path

import msgspec

from runner.compare import output, verdict
from runner.compare.models import compare_folders
from runner.errors import ModelError, RequestError
from runner.record import layout, run_folders
from runner.terminal import cli


def main() -> None:
    """Compare, and leave with 0, or 2 where there is nothing to compare."""
    cli.main(_compare)


def _compare(arguments: list[str]) -> None:
    asked = _parser().parse_args(arguments)
    if asked.repeat:
        return _repeat(run_folders.find(asked.repeat, asked.runs_folder))
    folders, place = _found(asked)
    # Trials of a sweep that have not begun have no folder yet: the others are compared meanwhile.
    there = [folder for folder in folders if any((folder / name).exists() for name in (layout.PLAN, layout.EVALUATION))]
    found = compare_folders(there, asked.metric, asked.margin)
    target = asked.to or place
    if target is not None:
        output.write(found, target)
    if asked.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(verdict.as_json(found))).decode() + "\n")
    elif asked.markdown:
        sys.stdout.write(verdict.markdown(found))
    else:
        output.show(found, target)


def _repeat(folder: Path) -> None:
    from runner.compare import repeat
    from runner.terminal import console

    found = repeat.repeat(folder)
    console.say(found.command)
    for change in found.changes:
        console.say(f"changed: {change}")
    if not found.changes:
        console.say("nothing changed: data, model, code and packages are the same; again=true runs it again.")


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("runner.compare", __doc__)
    parser.add_argument("names", nargs="*", metavar="RUN or SWEEP")
    parser.add_argument("--experiment", help="an MLflow experiment, in MLFLOW_TRACKING_URI or ./mlflow.db")
    parser.add_argument("--filter", default="", help="MLflow's search expression over that experiment's runs")
    parser.add_argument(
        "--metric", action="append", help="what to rank by: eval/reward_accuracy, eval/GRADER, …; may be repeated: the "
        "first ranks, and all are corrected for being several; `graders` means every grader",
    )  # fmt: skip
    parser.add_argument("--margin", type=cli.margin, help="say which is no worse by more than this (0.02: 2 points)")
    parser.add_argument("--repeat", metavar="RUN", help="print the command that makes a run again, and what changed")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where to write the comparison")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    return parser


def _found(asked: argparse.Namespace) -> tuple[list[Path], Path | None]:
    """Return the folders of the runs that are meant, and the sweep's own folder where it is one."""
    if asked.filter and not asked.experiment:
        raise RequestError("--filter: it is of the runs of an MLflow experiment; name that as well, --experiment NAME.")
    if asked.experiment:
        from runner.tracking import folders as tracked

        found = tracked.found(asked.experiment, asked.filter, asked.runs_folder)
        if not found:
            raise RequestError(
                f"--experiment: {asked.experiment} has no run of the runner's that the filter lets through."
            )
        return found, None
    if not asked.names:
        made = run_folders.sweeps(asked.runs_folder)
        if not made:
            raise RequestError("compare: there is no sweep here; name runs: python -m runner.compare RUN RUN.")
        return trials(made[-1]), made[-1]
    if len(asked.names) == 1:
        for folder in (Path(asked.names[0]), run_folders.sweeps_in(asked.runs_folder) / asked.names[0]):
            if (folder / layout.SWEEP).exists():
                return trials(folder), folder
    evaluations = {name: folder for name in asked.names if (folder := _evaluation(name, asked.runs_folder))}
    if len(asked.names) == len(evaluations) == 1:
        (folder,) = evaluations.values()
        return [folder], folder
    try:
        return [evaluations.get(name) or run_folders.find(name, asked.runs_folder) for name in asked.names], None
    except ModelError as error:
        sweeps = ", ".join(sorted(folder.name for folder in run_folders.sweeps(asked.runs_folder)))
        raise ModelError(f"{error} Sweeps: {sweeps or 'none'}.") from error


def _evaluation(name: str, runs: Path) -> Path | None:
    """Return the folder of an evaluation by its path, or by its name among the evaluations."""
    folders = (Path(name), run_folders.evaluations_in(runs) / name)
    return next((folder for folder in folders if (folder / layout.EVALUATION).exists()), None)


def trials(folder: Path) -> list[Path]:
    """Return the folders of a sweep's trials."""
    kept = msgspec.json.decode((folder / layout.SWEEP).read_bytes())
    return list(dict.fromkeys(Path(each["folder"]) for each in kept["trials"]))


if __name__ == "__main__":
    main()
