"""What a hosted job will take, said before anything is sent: tokens and price, what it creates, what stands."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner import models
from runner.backends.foundry.catalogue import SHIPPED, Model, catalogue
from runner.backends.foundry.keys import Foundry
from runner.cost import Cost
from runner.cost import price as in_words
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
    known = _existing(run)
    return [
        ("trains", _trained(run, tokens)),
        ("price", f"{_price(run, model, tokens)} (table of {table.date}, {settings.models or SHIPPED})"),
        ("time", "not known: the service queues jobs, and they run for minutes to hours"),
        ("creates", f"{'2 files' if run.plan.validation else '1 file'}, unless they are there already, and 1 job"),
        ("deployment", _standing(run, model)),
        *([("exists", known)] if known else []),
    ]


def cost(run: "Run", tokens: "Tokens | None") -> Cost:
    """Return the price of training by the table: to be spent, or spent where the job exists, as it is paid once."""
    model = catalogue(Foundry.of(run.request).models).find(models.hosted_name(run.plan.model.source) or "")
    rate, n_epochs = _rate(run, model), _n_epochs(run)
    price = None
    # With n_epochs=auto the service decides how often it reads the rows, and nobody knows the price before.
    if rate is not None and tokens is not None and n_epochs is not None:
        price = tokens.splits["train"] * n_epochs * rate / 1e6
    # Paid once: the same plan again finds its job.
    if "create" in read_state(run.folder).results:
        return Cost(None, 0.0, price)
    return Cost(None, price)


def _n_epochs(run: "Run") -> int | None:
    """Return how often the rows are read; None with `auto`, where only the service decides it."""
    found = run.plan.hyperparameters["n_epochs"]
    return found if isinstance(found, int) else None


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
    per_token = f"${rate:.2f} a million tokens, {kind}"
    if tokens is None:
        return per_token
    dollars = tokens.splits["train"] * rate / 1e6
    if n_epochs is None:
        return f"{in_words(dollars)} an epoch: {per_token}"
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
