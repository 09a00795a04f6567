"""What a job takes that is paid by the hour: steps, hours where an earlier job tells its pace, what grading adds."""

from collections.abc import Iterator
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.backends.foundry.catalogue import Model
from runner.backends.foundry.keys import Foundry
from runner.cost import duration
from runner.graders import Grader, Sample, Subject
from runner.hosted import rewards
from runner.judging.keys import JudgeKeys
from runner.record import outcome, run_folders

if TYPE_CHECKING:
    from runner.plan import Run

STEP_SECONDS = "hosted/timing/step/full_iteration"
"""What the service tells of each optimizer step, its rollouts, grading, update and evaluation included."""
COUNTED_ROWS = 32


def trained(run: "Run") -> str:
    """Say what is trained."""
    keys, rows = run.plan.hyperparameters, run.plan.train.rows
    steps = _steps(run)
    told = f"about {steps:,} optimizer steps" if steps else "the service chooses how many optimizer steps"
    chosen = ", ".join(f"{key}={keys[key]}" for key in ("n_epochs", "batch_size"))
    return f"{rows:,} prompts, {chosen}: {told}, each with several answers to a prompt"


def price(run: "Run", model: Model | None) -> str:
    """Say what an hour costs, how many there may be, and where the service stops."""
    kind = Foundry.of(run.request).training_type
    rate, exact = model.hourly(kind) if model else (None, False)
    told = f"not known: an hour of {run.plan.model.source.partition(':')[2]} with {kind} is not in the table"
    if rate is not None:
        told = f"{'' if exact else 'at most '}${rate:,.2f} an hour of training, {kind}"
    seconds, paid = _seconds(run), dollars(run, model)
    if seconds is None:
        told += "; how many hours is known after a first job of this model here, with n_epochs and batch_size set"
    else:
        told += f"; about {duration(seconds)} at the pace of the last job of this model"
        told = f"about ${paid:,.2f}: {told}" if paid is not None else told
    if model and model.cost_limit is not None:
        told += f"; the service pauses the job once training and grading have cost ${model.cost_limit:,.0f}"
    elif model:
        told += "; the service has no limit of cost for this model"
    return told


def dollars(run: "Run", model: Model | None) -> float | None:
    """Return what training will cost at most by the pace of an earlier job; None where that is not known."""
    rate = model.hourly(Foundry.of(run.request).training_type)[0] if model else None
    seconds = _seconds(run)
    return None if rate is None or seconds is None else seconds / 3600 * rate


def grading(run: "Run") -> Iterator[tuple[str, str]]:
    """Yield what grading costs, as far as it can be known, and what of the grader is not sent."""
    grader = rewards.grader_of(run.request)
    asked = list(dict.fromkeys(grader.models()))
    if not asked:
        yield "grading", "no tokens; its time is a part of the training's"
    else:
        tokens_in, tokens_out = _tokens(run, grader)
        held_out = run.plan.validation.rows if run.plan.validation else 0
        yield (
            "grading",
            f"{', '.join(asked)}, paid by the token beside the training: about {tokens_in:,} tokens in and "
            f"{tokens_out:,} out for each answer; {held_out:,} held-out rows × rft.eval_samples answers an evaluation, "
            "how many in training is the service's choice",
        )
    if unsent := list(rewards.not_sent(grader, f"{run.request.method}.grader")):
        yield "not sent", f"{', '.join(unsent)}: only we have these; the service's limits are 120 s and 2 GB a grade"


def _tokens(run: "Run", grader: Grader) -> tuple[int, int]:
    """Return the tokens that grading one answer takes, in and out, by the first rows and answers like theirs."""
    from runner.judging.price import forecast

    subjects = []
    for row in islice(run.rows("train"), COUNTED_ROWS):
        reference = row.fields().get("reference")
        subjects.append(
            Subject(msgspec.to_builtins(row.wire()), Sample(reference if isinstance(reference, str) else ""))
        )
    found = forecast(grader, subjects, JudgeKeys())
    return found.input_tokens // len(subjects), found.output_tokens // len(subjects)


def _steps(run: "Run") -> int | None:
    """Return the optimizer steps of a job; None where the service chooses them."""
    n_epochs, batch_size = (run.plan.hyperparameters[key] for key in ("n_epochs", "batch_size"))
    return None if "auto" in (n_epochs, batch_size) else ceil(run.plan.train.rows * n_epochs / batch_size)


def _seconds(run: "Run") -> float | None:
    """Return how long training takes at the pace of the last job of the same model and method in this folder."""
    steps = _steps(run)
    if steps is None:
        return None
    for folder in reversed(run_folders.every(Path(run.request.runs_folder))):
        content = outcome.read(folder)
        if content is None or STEP_SECONDS not in content["metrics"]:
            continue
        plan = content["plan"]
        if (plan["model"]["source"], plan["method"]) == (run.plan.model.source, run.plan.method):
            return float(content["metrics"][STEP_SECONDS]) * steps
    return None
