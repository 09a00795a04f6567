"""The report that every run folder ends with: `report.json` for programs; for people `report.html` and `report.md`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from runner import methods
from runner.errors import STOPPED, LeftRunning, Pruned, StopAsked
from runner.execution.execute import versions
from runner.plan import Plan, Run
from runner.record import graded, journal, layout
from runner.record.events import Samples, StepDone
from runner.record.files import write_json
from runner.record.journal import Record
from runner.record.outcome import Report, Saved, last_values, saved
from runner.request import hydra_errors


@dataclass(frozen=True)
class Outcome:
    """How an execution ended: finished, running (a hosted job continues), stopped, pruned or failed; and the reason."""

    status: str
    message: str = ""


def outcome(run: Run, results: Mapping[str, object]) -> Outcome:
    """Return the outcome of an execution that ended well: with a model, or with a hosted job that was left to run."""
    if "save" in results:
        return Outcome("finished")
    return Outcome("running", f"the job continues at the service; python -m runner.watch {run.handle} follows it")


def failure(error: BaseException) -> Outcome:
    """Return the outcome of an execution that an exception ended."""
    if isinstance(error, LeftRunning):
        return Outcome("running", str(error))
    if isinstance(error, Pruned):
        return Outcome("pruned", str(error))
    if isinstance(error, StopAsked | KeyboardInterrupt):
        # What a step has added to the usual words: what continues at a service, say.
        more = str(error).removeprefix(STOPPED)
        return Outcome("stopped", f"give the same command again to continue{'.' if more else ''}{more}")
    return Outcome("failed", str(hydra_errors.sentence(error) or error))


def write(run: Run, outcome: Outcome) -> Report:
    """Write the files from what the journal holds and return the content."""
    content = build(run, outcome, journal.read(run.folder / layout.JOURNAL))
    write_json(run.folder / layout.REPORT, content)
    (run.folder / layout.REPORT_PAGE).write_text(markdown(run.plan, content), "utf-8")
    # A run that ended before its plan was written has nothing to show.
    if (run.folder / layout.PLAN).exists():
        from runner.pages import run as page  # brings jinja2 and scipy

        page.write(run, content)
    return content


def build(run: Run, outcome: Outcome, records: Sequence[Record]) -> Report:
    """Return the report as a JSON value."""
    # Of a step that was done twice, for other samples say, the later result.
    steps = {each.event.step: each.event for each in records if isinstance(each.event, StepDone)}
    samples = [each.event.rows for each in records if isinstance(each.event, Samples)]
    return {
        "plan_id": run.plan.id,
        "name": run.folder.name,
        "status": outcome.status,
        "message": outcome.message,
        "metrics": last_values(records),
        "graded": _graded(run.folder),
        "model": saved(steps["save"].result) if "save" in steps else None,
        "results": {name: step.result for name, step in steps.items()},
        "seconds": {name: step.seconds for name, step in steps.items()},
        "started": records[0].time if records else None,
        "ended": records[-1].time if records else None,
        "samples": samples[-1] if samples else [],
        "versions": versions(),
        "plan": msgspec.to_builtins(run.plan),
    }


def _graded(folder: Path) -> list[str]:
    """Say how the tuned model's grades differ from the base model's, with intervals; nothing where there are none."""
    path = folder / graded.GRADES
    if not path.exists() or not path.stat().st_size:  # empty where graders are asked for, and no answers
        return []
    from runner.compare.models import compare_models  # brings scipy

    return compare_models(folder).sentences


def markdown(plan: Plan, content: Report) -> str:
    """Return the report as a page: what was done, how it came out, what the model says now."""
    model = content["model"]
    lines = [
        f"# {content['name']}",
        "",
        f"{content['status'].capitalize()}. {content['message']}".strip(),
        "",
        f"- plan `{content['plan_id']}`",
        f"- {plan.method} on {plan.train.rows} rows, backend {plan.backend}",
        f"- base model: `{plan.model.source}`",
        f"- model reference: {_code(model['model'] if model else None)}",
        "",
        *_checkpoints(model or {}),
        *(f"- {sentence}." for sentence in content["graded"]),
        "",
        *_table(["metric", "value"], [[name, f"{value:.4g}"] for name, value in sorted(content["metrics"].items())]),
        *_table(["step", "seconds"], [[name, f"{value:.1f}"] for name, value in content["seconds"].items()]),
        *_table(
            ["key", "value"],
            [[key, str(value)] for key, value in methods.load(plan.method).shown(plan.hyperparameters).items()],
        ),
    ]
    return "\n".join([*lines, *shown(content["samples"])]) + "\n"


def shown(samples: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the lines that show prompts with both answers, as they are: a model's markup is none of the page's."""
    titles = {"prompt": "**Prompt**", "before": "Before:", "after": "After:"}
    return [
        line for sample in samples for key, title in titles.items() for line in (title, "", _verbatim(sample[key]), "")
    ]


def _checkpoints(model: Saved) -> list[str]:
    found = [[_code(each["model"]), str(each["step"])] for each in model.get("checkpoints", ())]
    return _table(["checkpoint", "step"], found)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    cells = [[each.replace("|", "\\|") for each in row] for row in [head, ["---"] * len(head), *rows]]
    return ["| " + " | ".join(row) + " |" for row in cells] + [""]


def _code(text: str | None) -> str:
    return f"`{text}`" if text else "none yet"


def _verbatim(text: str) -> str:
    # Quoted, a picture in an answer would be fetched by whoever shows the page. A fence ends at one of its length.
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
