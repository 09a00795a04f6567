"""What a hosted job will take, said before anything is sent: tokens and price, what it creates, what exists."""

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner import methods, models
from runner.backends.foundry import vision
from runner.backends.foundry.catalogue import SHIPPED, Catalogue, Model, catalogue
from runner.backends.foundry.keys import Foundry
from runner.cost import Cost, duration
from runner.cost import price as in_words
from runner.graders import Grader, Sample, Subject
from runner.hosted import methods as wire_forms
from runner.hosted import rewards
from runner.judging.keys import JudgeKeys
from runner.models.source import ModelIdentity
from runner.record import outcome, run_folders
from runner.record.journal import read_state

if TYPE_CHECKING:
    from runner.cost import Tokens
    from runner.plan import Proposal, Run


STEP_SECONDS = "hosted/timing/step/full_iteration"
"""What the service reports of each optimizer step, its rollouts, grading, update and evaluation included."""
COUNTED_ROWS = 32


def forecast(proposal: "Proposal", tokens: "Tokens | None") -> Sequence[tuple[str, str]]:
    """Return the price of training, what is created, what keeps costing, and what is known to exist."""
    run = proposal.run
    settings = Foundry.of(run.request)
    table = catalogue(settings.models)
    model = table.find(models.hosted_name(run.plan.model.source) or "")
    if wire_forms.load(run.plan.method).paid_by_hour:
        trained, price = _trained_by_hour(run), _price_by_hour(run, model)
    else:
        trained, price = _trained(run, tokens), _price(run, model, tokens)
    known = _existing(run)
    graded = methods.load(run.plan.method).graded
    return [
        ("trains", trained),
        *vision.forecast(table, model, proposal.survey.splits["train"].with_images),
        ("price", f"{price} (table of {(model and model.read) or table.date}, {settings.models or SHIPPED})"),
        *(_grading(run) if graded else []),
        *_lifetime(run, table, model),
        ("time", "not known: the service queues jobs, and they run for minutes to hours"),
        ("creates", f"{'2 files' if run.plan.validation else '1 file'}, unless they are there already, and 1 job"),
        *_limits(run, table, tokens),
        ("deployment", _standing(run, model)),
        *([("exists", known)] if known else []),
    ]


def cost(run: "Run", tokens: "Tokens | None") -> Cost:
    """Return the price of training by the table: to be spent, or spent where the job exists, as it is paid once."""
    model = catalogue(Foundry.of(run.request).models).find(models.hosted_name(run.plan.model.source) or "")
    by_hour = wire_forms.load(run.plan.method).paid_by_hour
    price = dollars_of_hours(run, model) if by_hour else _dollars_of_tokens(run, model, tokens)
    # Paid once: the same plan again finds its job.
    if "create" in read_state(run.folder).results:
        return Cost(None, 0.0, price)
    return Cost(None, price)


def _lifetime(run: "Run", table: Catalogue, model: Model | None) -> Iterator[tuple[str, str]]:
    """Yield until when the model is trained and deployed, and where that ends what to use in its place."""
    if model is None:
        return
    dates, name, method = model.dates(date.today()), models.hosted_name(run.plan.model.source) or "", run.plan.method
    if dates:
        yield "model", dates + (table.said("retirement") if model.retires else "")
    if model.retires:
        instead = table.replacement(name, method, methods.load(method).graded)
        retired = model.base_retired is not None and model.base_retired <= date.today()
        yield "warning", f"{name} {'is retired' if retired else 'retires'}; in its place, for {method}: {instead}"


def _limits(run: "Run", table: Catalogue, tokens: "Tokens | None") -> Iterator[tuple[str, str]]:
    """Yield what the service takes at a time and keeps, and whether the job is larger than it may be."""
    limits, n_epochs = table.limits, _n_epochs(run)
    if limits is None:
        return
    developer = Foundry.of(run.request).training_type == "Developer"
    yield (
        "limits",
        f"{limits.running_developer if developer else limits.running} jobs run at a time and {limits.queued} wait at "
        f"the service, further ones wait here for their turn; {limits.jobs} jobs and {limits.files} files are kept, "
        f"and a job has up to {limits.tokens / 1e9:g} billion tokens × epochs and {limits.hours} hours"
        f"{table.said('limits')}",
    )
    if tokens is not None and n_epochs is not None and tokens.splits["train"] * n_epochs > limits.tokens:
        trained = tokens.splits["train"] * n_epochs / 1e9
        yield "warning", f"{trained:.3g} billion tokens × epochs are more than a job may have: the service refuses it"


def _n_epochs(run: "Run") -> int | None:
    """Return how often the rows are read; None with `auto`, where only the service decides it."""
    found = run.plan.hyperparameters["n_epochs"]
    return found if isinstance(found, int) else None


def _dollars_of_tokens(run: "Run", model: Model | None, tokens: "Tokens | None") -> float | None:
    rate, n_epochs = _rate(run, model), _n_epochs(run)
    # With n_epochs=auto the service decides how often it reads the rows, and nobody knows the price before.
    if rate is None or tokens is None or n_epochs is None:
        return None
    return float(tokens.splits["train"] * n_epochs * rate / 1e6)


def _rate(run: "Run", model: Model | None) -> float | None:
    """Return the dollars that a million tokens cost."""
    return model.training_per_million_tokens.get(Foundry.of(run.request).training_type) if model else None


def _trained(run: "Run", tokens: "Tokens | None") -> str:
    n_epochs = _n_epochs(run)
    if tokens is None:
        return "tokens not counted: pip install 'runner[foundry]' counts them"
    about, each = "" if tokens.exact else "about ", f"{tokens.splits['train']:,}"
    if n_epochs is None:
        return f"{about}{each} tokens an epoch; the service chooses how many (n_epochs=auto)"
    times = "1 epoch" if n_epochs == 1 else f"{n_epochs} epochs"
    return f"{about}{tokens.splits['train'] * n_epochs:,} tokens: {times} of {each}"


def _price(run: "Run", model: Model | None, tokens: "Tokens | None") -> str:
    kind = Foundry.of(run.request).training_type
    rate = _rate(run, model)
    if rate is None:
        return f"not known: {models.hosted_name(run.plan.model.source)} with {kind} is not in the table"
    n_epochs = _n_epochs(run)
    per_token = f"${rate:.2f} per million tokens, {kind}"
    if tokens is None:
        return per_token
    dollars = tokens.splits["train"] * rate / 1e6
    if n_epochs is None:
        return f"{in_words(dollars)} per epoch: {per_token}"
    return f"{in_words(dollars * n_epochs)}: {per_token}"


def _standing(run: "Run", model: Model | None) -> str:
    settings = Foundry.of(run.request)
    if settings.deploy == "none":
        return "none, so no answers are compared (backend.deploy=keep or delete_after_eval makes one)"
    if settings.deployment.sku == "DeveloperTier":
        # Both limits: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-deploy
        price = "no price by the hour; the service removes it after 24 hours"
    else:
        rate = model.deployment_per_hour if model else None
        price = f"about ${rate:.2f} per hour while it exists" if rate is not None else "paid by the hour"
        price += ", used or not; the service removes it after 15 days without use"
    after = "removed after the evaluation" if settings.deploy == "delete_after_eval" else "kept until you remove it"
    return f"{settings.deployment.sku}, {after}: {price}"


def _existing(run: "Run") -> str:
    """Return what this run has made or found so far, by its journal: the service itself is asked when it runs."""
    known = read_state(run.folder)
    found = [f"{what} {name}" for what, name in known.created]
    if "create" in known.results:
        state = known.states.get("job", "created")
        # Said once, with its state.
        found = [each for each in found if not each.startswith("job ")]
        found.append(f"job {known.results['create']['job']} ({state} when last seen)")
    return ", ".join(found)


def _trained_by_hour(run: "Run") -> str:
    """Say what is trained."""
    keys, rows = run.plan.hyperparameters, run.plan.train.rows
    steps = _steps(run)
    length = f"about {steps:,} optimizer steps" if steps else "the service chooses how many optimizer steps"
    chosen = ", ".join(f"{key}={keys[key]}" for key in ("n_epochs", "batch_size"))
    return f"{rows:,} prompts, {chosen}: {length}, each with several answers to a prompt"


def _price_by_hour(run: "Run", model: Model | None) -> str:
    """Say what an hour costs, how many there may be, and where the service stops."""
    kind = Foundry.of(run.request).training_type
    rate, exact = model.hourly(kind) if model else (None, False)
    text = f"not known: an hour of {run.plan.model.source.partition(':')[2]} with {kind} is not in the table"
    if rate is not None:
        text = f"{'' if exact else 'at most '}${rate:,.2f} an hour of training, {kind}"
    seconds, paid = _seconds(run), dollars_of_hours(run, model)
    if seconds is None:
        text += "; how many hours is known after a first job of this model here, with n_epochs and batch_size set"
    else:
        text += f"; about {duration(seconds)} at the pace of the last job of this model"
        text = f"about ${paid:,.2f}: {text}" if paid is not None else text
    if model and model.cost_limit is not None:
        text += f"; the service pauses the job once training and grading have cost ${model.cost_limit:,.0f}"
    elif model:
        text += "; the service has no limit of cost for this model"
    return text


def dollars_of_hours(run: "Run", model: Model | None) -> float | None:
    """Return what training will cost at most by the pace of an earlier job; None where that is not known."""
    rate = model.hourly(Foundry.of(run.request).training_type)[0] if model else None
    seconds = _seconds(run)
    return None if rate is None or seconds is None else seconds / 3600 * rate


def _grading(run: "Run") -> Iterator[tuple[str, str]]:
    """Yield what grading costs, as far as it can be known, and what of the grader is not sent."""
    grader = rewards.grader_of(run.request)
    asked = list(dict.fromkeys(grader.models()))
    if not asked:
        yield "grading", "no tokens; its time is a part of the training's"
    else:
        tokens_in, tokens_out = _tokens_of_a_grade(run, grader)
        held_out = run.plan.validation.rows if run.plan.validation else 0
        yield (
            "grading",
            f"{', '.join(asked)}, paid by the token in addition to the training: about {tokens_in:,} tokens in and "
            f"{tokens_out:,} out per answer; {held_out:,} held-out rows × rft.eval_samples answers per evaluation, "
            "how many in training is the service's choice",
        )
    if unsent := list(rewards.not_sent(grader, f"{run.request.method}.grader")):
        yield "not sent", f"{', '.join(unsent)}: only we have these; the service's limits are 120 s and 2 GB per grade"


def _tokens_of_a_grade(run: "Run", grader: Grader) -> tuple[int, int]:
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
    if not isinstance(n_epochs, int) or not isinstance(batch_size, int):
        return None
    return ceil(run.plan.train.rows * n_epochs / batch_size)


class _Trained(msgspec.Struct):
    """What a report says of the plan."""

    model: ModelIdentity
    method: str


def _seconds(run: "Run") -> float | None:
    """Return how long training takes at the pace of the last job of the same model and method in this folder."""
    steps = _steps(run)
    if steps is None:
        return None
    for folder in reversed(run_folders.every(Path(run.request.runs_folder))):
        content = outcome.read(folder)
        if content is None or STEP_SECONDS not in content["metrics"]:
            continue
        plan = msgspec.convert(content["plan"], _Trained)
        if (plan.model.source, plan.method) == (run.plan.model.source, run.plan.method):
            return float(content["metrics"][STEP_SECONDS]) * steps
    return None
