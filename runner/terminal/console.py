"""What a person sees in the terminal: the plan before, and what came of it after. The live part is in progress.py."""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import IO

from rich.console import Console as Terminal
from rich.table import Table
from rich.text import Text

from runner import backends, methods
from runner.cost import Tokens, duration
from runner.errors import RequestError
from runner.evaluation.rehearsal.rehearsed import SAMPLES, BaseScores, Rehearsed
from runner.models.limit import template_of
from runner.plan import Proposal, Run
from runner.record import layout
from runner.record.outcome import Report
from runner.tracking.sender import Position

sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 (started with it closed; nobody reads on)
sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
PROMPT_CHARACTERS = 400
"""So much of a sample's prompt is printed: a document in it would scroll the answers away."""
WIDTH = None if sys.stdout.isatty() else 120
"""Where there is no terminal to ask (a log file, CI), lines are of this width."""


class Output(Terminal):
    """A stream of the process; work continues when its reader is gone (`python -m runner | head -1`)."""

    def on_broken_pipe(self) -> None:
        """Drop what is printed from now on; rich would end the process."""
        silence(self.file)


terminal = Output(highlight=False, width=WIDTH)
# 1,000 columns: nothing is folded, and the terminal wraps as it likes.
unfolded = Output(highlight=False, width=1000)
"""For tables whose names are to be copied."""
errors = Output(stderr=True, highlight=False)


def say(text: str = "") -> None:
    """Print a line as it is."""
    # As Text: in a string rich would take [brackets] of a path or a row for markup.
    terminal.print(Text(text), soft_wrap=True)


def complain(text: str) -> None:
    """Print an error on standard error."""
    errors.print(Text(text, style="red" if errors.is_terminal else ""), soft_wrap=True)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], fold: bool = True) -> None:
    """Print a small table; the first column names, the others say. Without `fold` lines are as long as they must be."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(head))
    for index, name in enumerate(head):
        first = index == 0
        drawn.add_column(
            name, style="dim" if first else "", overflow="fold", header_style="dim", no_wrap=first or not fold
        )
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    terminal.print(Text(title, style="bold"), soft_wrap=True)
    (terminal if fold else unfolded).print(drawn)
    terminal.print()


def confirm_price(dollars: float | None, most: float | None) -> None:
    """Ask before more is spent than allowed; raise `RequestError` where there is nobody to ask, or the answer is no.

    `dollars` is None where the price is not known, `most` where any price will do.
    """
    if most is None or (dollars is not None and dollars <= most):
        return
    price = "a price that is not known" if dollars is None else f"about ${dollars:,.2f}"
    # A cron job or CI has nobody to ask: there the answer is no.
    if terminal.is_terminal and sys.stdin.isatty():
        answer = terminal.input(Text(f"This takes {price}, max_price is ${most:,.2f}. Continue? [y/N] "))
        if answer.strip().lower() in ("y", "yes"):
            return
    raise RequestError(f"max_price: got {most:g}, but this takes {price}; nothing was sent. Raise it, or leave it out.")


def show_plan(proposal: Proposal, done: bool, tokens: Tokens | None) -> None:
    """Print what is going to be done: data, what was found in it, the resolved hyperparameters, what it takes."""
    run = proposal.run
    plan = run.plan
    say(f"{run.folder.name}   plan {plan.id[:16]}…")
    say()
    _show_data(proposal, tokens)
    _show_findings(proposal)
    _show_values(proposal)
    show_graders(proposal.rehearsed)
    if plan.validation is None:
        say(
            "note: no rows are held out, so nothing is evaluated during training; set dataset.validation or "
            "dataset.validation_fraction"
        )
    for sentence in proposal.left_out:
        say(f"note: {sentence}")
    # A plan keeps the folder that it was first given, so that a new name cannot make it a second run.
    name = run.request.name
    if name != "auto" and not run.folder.name.startswith(f"{name}-"):
        say(f"note: this plan has a folder already, {run.folder}; name={name} is not used")
    state = "finished before: nothing is done again (again=true starts over)" if done else "to do"
    say(f"{plan.method} on {plan.backend}, {state}; its folder is {run.folder}/")
    if not done:
        for title, text in backends.load(plan.backend).forecast(proposal, tokens):
            say(f"{title}: {text}")
    say()


def _show_data(proposal: Proposal, tokens: Tokens | None) -> None:
    rows = []
    for name, split in proposal.survey.splits.items():
        counted = f"{'' if tokens.exact else 'about '}{tokens.splits[name]:,}" if tokens else "model not here yet"
        answers = f"{split.answer_characters.median:,} (longest {split.answer_characters.greatest:,})"
        turns = f"{split.turns.least} to {split.turns.greatest}"
        rows.append([name, f"{split.rows:,}", counted, turns, answers, split.fingerprint[:12]])
    table("Data", ["split", "rows", "tokens", "turns", "characters of an answer, median", "fingerprint"], rows)
    # What became of the weights shows in the numbers of rows only.
    for name, files in proposal.survey.by_file.items() if proposal.run.request.dataset.mix else ():
        say(f"mixture, {name}: {', '.join(f'{rows:,} of {file}' for file, rows in files.items())}")


def _show_findings(proposal: Proposal) -> None:
    for group in proposal.survey.findings:
        say(group.sentence)
    if proposal.survey.findings:
        say()


def show_graders(rehearsed: Sequence[Rehearsed]) -> None:
    """Print how graders did on the answers that the data has, and what is odd."""
    kinds = list(dict.fromkeys(kind for each in rehearsed for kind in each.scores))
    rows = [
        [each.name, each.type, *(f"{each.scores[kind]:.2f}" if kind in each.scores else "" for kind in kinds)]
        for each in rehearsed
    ]
    if rows:
        table("Graders, on the answers that the data has", ["grader", "type", *kinds], rows)
    for each in rehearsed:
        if each.price is not None:
            say(f"grader {each.name}: {each.price.sentence}")
        for warning in each.warnings:
            say(f"warning: grader {each.name}: {warning}")


def show_base_scores(found: Sequence[BaseScores]) -> None:
    """Print how the base model does by each grader, and what prevents learning by it."""
    rows = [
        [
            each.grader,
            "?" if each.pass_rate is None else f"{each.pass_rate:.0%}",
            f"{each.mean:.3f}",
            f"{each.spread:.3f}",
            f"{each.varied} of {each.prompts}",
            f"{each.characters:.0f}",
            f"{each.cut_off:.0%}",
        ]
        for each in found
    ]
    head = ["grader", "pass rate", "mean score", "spread within a prompt", "prompts whose answers differ"]
    head += ["characters", "cut off"]
    table(f"Base model, {SAMPLES} answers to each of {max(each.prompts for each in found)} prompts", head, rows)
    for each in found:
        for warning in each.warnings:
            say(f"warning: grader {each.grader}: {warning}")


def _show_values(proposal: Proposal) -> None:
    plan, reasons = proposal.run.plan, proposal.reasons
    values = methods.load(plan.method).shown(plan.hyperparameters) | {
        "model.source": plan.model.source.partition("@sha256")[0]
        + (f" ({plan.model.digest[:12]})" if plan.model.digest else ""),
        "chat template": template_of(plan.model.source),
        "backend.learning_rate": plan.settings.get("learning_rate"),
    }
    settings = proposal.run.request.backend  # the plan has no keys on how the work is done
    # Keys that do not decide the result, but that were chosen for a reason: the number of threads, say.
    values |= {key: attrgetter(key.removeprefix("backend."))(settings) for key in reasons if key.startswith("backend.")}
    rows = [[key, str(value), reasons.get(key, "")] for key, value in values.items() if value is not None]
    table("Plan", ["key", "value", "auto, because"], rows)


def show_outcome(run: Run, content: Report, position: Position | None, problem: str) -> None:
    """Print how a run came out: metrics, answers before and after, where everything is, what to do next."""
    say()
    # Three show the style; all of them are in the report and MLflow.
    for sample in content["samples"][:3]:
        prompt = sample["prompt"]
        cut = f"{prompt[:PROMPT_CHARACTERS]}…" if len(prompt) > PROMPT_CHARACTERS else prompt
        table(f"“{cut}”", ["", ""], [["before", sample["before"]], ["after", sample["after"]]])
    if content["metrics"]:
        prefixes = ("eval/", "train/loss")
        shown = [[name, f"{value:.4g}"] for name, value in content["metrics"].items() if name.startswith(prefixes)]
        table("Metrics (last values)", ["name", "value"], shown)
    for sentence in content.get("graded", ()):
        say(f"{sentence}.")
    if content.get("graded"):
        say()
    rows = [["status", content["status"] + (f": {content['message']}" if content["message"] else "")]]
    spent = ", ".join(f"{name} {duration(seconds)}" for name, seconds in content["seconds"].items())
    rows += [["time", spent]] if spent else []  # stopped in its first step, a run has no time of a finished one
    if content["model"]:
        rows.append(["model", content["model"]["model"]])
    rows += [["MLflow", _tracked(position, problem)], ["report", str(run.folder / layout.REPORT_HTML)]]
    table(run.folder.name, ["", ""], rows)
    if content["status"] == "finished":
        _show_next(run, content, position)


TRIAL_METRICS = [f"eval/{each.name}" for each in methods.metrics().values() if each.headline]
"""Metrics that are printed of a trial when it ends."""


def show_trial_begun(run: Run, called: str) -> None:
    """Print which trial of a sweep begins; its plan was printed with the others'."""
    say()
    say(f"{run.folder.name}: {called}")


def show_trial(run: Run, content: Report, position: Position | None, problem: str) -> None:
    """Print in a line how a trial came out; the sweep's summary is printed at the end."""
    parts = [f"{name} {content['metrics'][name]:.4g}" for name in TRIAL_METRICS if name in content["metrics"]]
    parts += [duration(sum(content["seconds"].values()))]
    parts += [content["message"]] if content["message"] else []
    parts += [_tracked(position, problem)] if problem else []
    say(f"{content['status']}: {', '.join(parts)}")


def _tracked(position: Position | None, problem: str) -> str:
    if position is None:
        return "off (tracking=none)"
    if problem:
        return (
            f"{position.uri} could not be reached ({problem}); nothing is lost: the same command sends what is missing"
        )
    model = f", model models:/{position.model_id}" if position.model_id else ""
    return f"{position.uri}, run {position.run_id}{model}"


def _show_next(run: Run, content: Report, position: Position | None) -> None:
    lines = [("mlflow ui", "all runs, side by side")] if position is not None else []
    lines += backends.load(run.plan.backend).advice(run, content["results"])
    say("Next:")
    for line in commands([(in_this_shell(each), purpose) for each, purpose in lines], terminal.width):
        say(line)


def commands(lines: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Return commands with their purposes, next to each other where that fits the width, else one below the other."""
    longest = max(len(typed) for typed, _ in lines)
    # At 80 columns most names of runs are too long, and a folded line is no longer seen as a command.
    if all(2 + longest + 4 + len(purpose) <= width for _, purpose in lines):
        return [f"  {typed:{longest}}    {purpose}" for typed, purpose in lines]
    return [line for typed, purpose in lines for line in (f"  {purpose}:", f"    {typed}")]


def in_this_shell(typed: str) -> str:
    """Return a command as it works in this shell: by its path, where this Python's environment is not activated."""
    name, _, rest = typed.partition(" ")
    folder = Path(sys.executable).parent
    # Copied as it is shown, the command should start the Python that has the runner.
    active = shutil.which(name)
    if (active and Path(active).parent == folder) or not (folder / name).exists():
        return typed
    place = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return f"{place / name} {rest}"


def silence(stream: IO[str]) -> None:
    """Drop what is written to a stream from now on, and what it still holds."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        # The descriptor, not the object: what is buffered, and what C code writes, goes nowhere as well.
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
