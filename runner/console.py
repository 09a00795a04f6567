"""What a person sees in the terminal: the plan before, and what came of it after. The live part is in live.py."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console as Terminal
from rich.table import Table
from rich.text import Text

from runner.estimate import Estimate
from runner.plan import Job
from runner.tracking import Place

WIDTH = None if sys.stdout.isatty() else 120
"""Where there is no terminal to ask (a log file, CI), lines are of this width."""

terminal = Terminal(highlight=False, width=WIDTH)
errors = Terminal(stderr=True, highlight=False)


def say(text: str = "") -> None:
    """Print a line as it is."""
    terminal.print(Text(text), soft_wrap=True)


def complain(text: str) -> None:
    """Print an error on standard error."""
    errors.print(Text(text, style="red" if errors.is_terminal else ""), soft_wrap=True)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a small table; the first column names, the others say."""
    drawn = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in head:
        drawn.add_column(name, style="dim" if name == head[0] else "", overflow="fold", header_style="dim")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    terminal.print(drawn)
    terminal.print()


def duration(seconds: float) -> str:
    """Return `0.4 s`, `8 s`, `2 min 5 s` or `1 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def show_plan(job: Job, done: bool, work: Estimate | None) -> None:
    """Print what is going to be done: data, what was found in it, the resolved hyperparameters, the steps."""
    plan = job.plan
    say(f"{job.folder.name}   plan {plan.id[:16]}…")
    say()
    _show_data(job, work)
    _show_findings(job)
    _show_values(job)
    name = job.request.top.name
    if name != "auto" and not job.folder.name.startswith(f"{name}-"):
        say(f"note: this plan has a folder already, {job.folder}; name={name} is not used")
    state = "finished before: nothing is done again (again=true starts anew)" if done else "to do"
    say(f"{plan.method} on {plan.backend}, {state}; its folder is {job.folder}/")
    if not done:
        say(f"time to train: {_time(work)}")
    say()


def _time(work: Estimate | None) -> str:
    if work is None or work.seconds is None:
        return "not known before the first run of this model here"
    return f"about {duration(work.seconds)}, at the pace of the last run of this model"


def _show_data(job: Job, work: Estimate | None) -> None:
    rows = []
    for name, split in job.survey.splits.items():
        tokens = f"{'' if work.exact else 'about '}{work.tokens[name]:,}" if work else "model not here yet"
        answers = f"{split.answer_characters.median:,} (longest {split.answer_characters.greatest:,})"
        turns = f"{split.turns.least} to {split.turns.greatest}"
        rows.append([name, f"{split.rows:,}", tokens, turns, answers, split.fingerprint[:12]])
    table("Data", ["split", "rows", "tokens", "turns", "characters of an answer, median", "fingerprint"], rows)


def _show_findings(job: Job) -> None:
    for group in job.survey.findings:
        severity = "left out" if group.severity == "error" else group.severity
        more = f"  (and {group.count - 1} more of this kind)" if group.count > 1 else ""
        say(f"{severity}: {group.examples[0]}{more}")
    if job.survey.findings:
        say()


def _show_values(job: Job) -> None:
    plan = job.plan
    values = {f"{plan.method}.{key}": value for key, value in plan.hyperparameters.items()}
    values |= {
        "model.source": f"{plan.model.source.partition('@sha256')[0]} ({plan.model.digest[:12]})",
        "backend.learning_rate": plan.settings.get("learning_rate"),
    }
    values |= {key: plan.settings[key.removeprefix("backend.")] for key in job.reasons if key.startswith("backend.")}
    rows = [[key, str(value), job.reasons.get(key, "")] for key, value in values.items() if value is not None]
    table("Plan", ["key", "value", "auto, because"], rows)


def show_outcome(job: Job, content: Mapping[str, Any], place: Place | None, problem: str) -> None:
    """Print how a run came out: metrics, answers before and after, where everything is, what to do next."""
    say()
    for sample in content["samples"][:3]:
        table(f"“{sample['prompt']}”", ["", ""], [["before", sample["before"]], ["after", sample["after"]]])
    if content["metrics"]:
        told = ("eval/", "train/loss")
        shown = [[name, f"{value:.4g}"] for name, value in content["metrics"].items() if name.startswith(told)]
        table("Metrics (last values)", ["name", "value"], shown)
    rows = [["status", content["status"] + (f": {content['message']}" if content["message"] else "")]]
    rows += [["time", ", ".join(f"{name} {duration(seconds)}" for name, seconds in content["seconds"].items())]]
    if content["model"]:
        rows.append(["model", content["model"]["model"]])
    rows += [["MLflow", _tracked(place, problem)], ["report", f"{job.folder}/report.md"]]
    table(job.folder.name, ["", ""], rows)
    if content["status"] == "finished":
        _show_next(job, place)


def _tracked(place: Place | None, problem: str) -> str:
    if place is None:
        return "off (tracking=none)"
    if problem:
        return f"{place.uri} could not be reached ({problem}); nothing is lost: the same command sends what is missing"
    model = f", model models:/{place.model_id}" if place.model_id else ""
    return f"{place.uri}, run {place.run_id}{model}"


def _show_next(job: Job, place: Place | None) -> None:
    say("Next:")
    if place is not None:
        say("  mlflow ui                                     all runs, side by side")
    say(f"  python -m runner.chat {job.folder.name}    talk to it, beside the model it came from")
    say(f"  python -m runner model.source=run:{job.folder.name} …    go on from it")
