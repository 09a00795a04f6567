"""What a hosted job will take, said before anything is sent: tokens and price, what it creates, what stands."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner import methods, models
from runner.backends.foundry import hours
from runner.backends.foundry.catalogue import SHIPPED, Model, catalogue
from runner.backends.foundry.keys import Foundry
from runner.cost import Cost
from runner.hosted import methods as wire_forms
from runner.record.journal import read_state

if TYPE_CHECKING:
    from runner.cost import Tokens
    from runner.plan import Proposal, Run


def forecast(proposal: "Proposal", tokens: "Tokens | None") -> Sequence[tuple[str, str]]:
    """Return the price of training, what is created, what goes on costing, and what is known to exist."""
    run = proposal.run
    settings = Foundry.of(run.request)
    table = catalogue(settings.models)
    model = table.find(models.hosted_name(run.plan.model.source) or "")
    if wire_forms.load(run.plan.method).paid_by_hour:
        trained, price = hours.trained(run), hours.price(run, model)
    else:
        trained, price = _trained(run, tokens), _price(run, model, tokens)
    known = _existing(run)
    graded = methods.load(run.plan.method).graded
    return [
        ("trains", trained),
        ("price", f"{price} (table of {(model and model.read) or table.date}, {settings.models or SHIPPED})"),
        *(hours.grading(run) if graded else []),
        *([("model", model.dates)] if model and model.dates else []),
        ("time", "not known: the service queues jobs, and they run for minutes to hours"),
        ("creates", f"{'2 files' if run.plan.validation else '1 file'}, unless they are there already, and 1 job"),
        ("deployment", _standing(run, model)),
        *([("exists", known)] if known else []),
    ]


def cost(run: "Run", tokens: "Tokens | None") -> Cost:
    """Return the price of training by the table: to be spent, or spent where the job exists, as it is paid once."""
    model = catalogue(Foundry.of(run.request).models).find(models.hosted_name(run.plan.model.source) or "")
    by_hour = wire_forms.load(run.plan.method).paid_by_hour
    price = hours.dollars(run, model) if by_hour else _dollars_of_tokens(run, model, tokens)
    # Paid once: the same plan again finds its job.
    if "create" in read_state(run.folder).results:
        return Cost(None, 0.0, price)
    return Cost(None, price)


def _dollars_of_tokens(run: "Run", model: Model | None, tokens: "Tokens | None") -> float | None:
    rate, n_epochs = _rate(run, model), run.plan.hyperparameters["n_epochs"]
    # With n_epochs=auto the service decides how often it reads the rows, and nobody knows the price before.
    if rate is None or tokens is None or n_epochs == "auto":
        return None
    return float(tokens.splits["train"] * n_epochs * rate / 1e6)


def _rate(run: "Run", model: Model | None) -> float | None:
    """Return the dollars that a million tokens cost."""
    return model.training_per_million_tokens.get(Foundry.of(run.request).training_type) if model else None


def _trained(run: "Run", tokens: "Tokens | None") -> str:
    n_epochs = run.plan.hyperparameters["n_epochs"]
    if tokens is None:
        return "tokens not counted: pip install 'runner[foundry]' counts them"
    about, each = "" if tokens.exact else "about ", f"{tokens.splits['train']:,}"
    if n_epochs == "auto":
        return f"{about}{each} tokens an epoch; the service chooses how many (n_epochs=auto)"
    times = "1 epoch" if n_epochs == 1 else f"{n_epochs} epochs"
    return f"{about}{tokens.splits['train'] * n_epochs:,} tokens: {times} of {each}"


def _price(run: "Run", model: Model | None, tokens: "Tokens | None") -> str:
    kind = Foundry.of(run.request).training_type
    rate = _rate(run, model)
    if rate is None:
        return f"not known: {models.hosted_name(run.plan.model.source)} with {kind} is not in the table"
    n_epochs = run.plan.hyperparameters["n_epochs"]
    per_token = f"${rate:.2f} a million tokens, {kind}"
    if tokens is None:
        return per_token
    dollars = tokens.splits["train"] * rate / 1e6
    if n_epochs == "auto":
        return f"{_dollars(dollars)} an epoch: {per_token}"
    return f"{_dollars(dollars * n_epochs)}: {per_token}"


def _dollars(amount: float) -> str:
    return f"about ${amount:,.2f}" if amount >= 0.01 else "less than $0.01"


def _standing(run: "Run", model: Model | None) -> str:
    settings = Foundry.of(run.request)
    if settings.deploy == "none":
        return "none, so no answers are compared (backend.deploy=keep or delete_after_eval makes one)"
    if settings.deployment.sku == "DeveloperTier":
        # Both limits: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-deploy
        price = "no price by the hour; the service removes it after 24 hours"
    else:
        rate = model.deployment_per_hour if model else None
        price = f"about ${rate:.2f} an hour while it stands" if rate is not None else "paid by the hour while it stands"
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
