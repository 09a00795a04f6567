"""What a run at a remote engine takes, before it is sent: tokens by meter, dollars, and what can be paid twice."""

from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from runner import methods, models
from runner.backends import Lines
from runner.cost import price as in_words
from runner.data.splits import Split
from runner.models.chat.tokenizer import ChatTokenizer, TokenRow
from runner.record import samples
from runner.remote import rewarded
from runner.remote.keys import RemoteKeys
from runner.remote.money.rates import Rates, Usage, table, trained_again
from runner.remote.target import Target, num_steps
from runner.training.schedule import checkpoint_every, evaluate_every

if TYPE_CHECKING:
    from runner.plan import Run

COUNTED_ROWS = 1024
"""Rows of each split whose tokens are counted for an estimate; they stand for the others."""


def forecast(run: "Run", target: Target, repeats: str) -> Lines:
    """Return the lines of a plan; `repeats` is what the service guarantees where an answer is lost."""
    settings, usage, steps, most = target.settings, estimate(run, target), num_steps(run), run.request.max_price
    twice = checkpoint_every(settings.runtime.checkpoint_every, steps)
    return [
        ("service", f"{target.origin.base_model}, {steps:,} optimizer steps driven from here"),
        ("tokens", f"about {usage}" if usage else "not counted: the model's tokenizer is not on this machine"),
        ("price", _price(target, usage)),
        ("paid once", f"{repeats}; else at most {trained_again(twice)}"),
        ("ends", f"the session at the end, on Ctrl-C and on failure; {target.kept}"),
        *([("max_price", f"stops at a checkpoint before ${most:,.2f}")] if most is not None else []),
    ]


def _price(target: Target, usage: Usage | None) -> str:
    own, shipped, rates = target.settings.prices, target.shipped_prices, target.rates
    where = f"table of {table(own, shipped).date}, {own or shipped}"
    if rates is None:
        return f"not known: {target.origin.base_model} is not in the {where}"
    each = f"${rates.train:g} training, ${rates.prefill:g} prefill, ${rates.sample:g} sampling a million ({where})"
    return each if usage is None else f"{bounds(usage, rates)}: {each}"


def bounds(usage: Usage, rates: Rates) -> str:
    """Return what tokens cost, as one sum or as two bounds."""
    low, high = usage.dollars(rates)
    # Two sums that are written alike are one to whoever reads them.
    if in_words(low) == in_words(high):
        return in_words(high)
    return f"{in_words(low)} to {in_words(high)}, by how `forward` is billed"


def row_tokens(row: TokenRow) -> int:
    """Return the tokens that a service computes for a row: each answer with its prompt, all but the last token."""
    return sum(len(row.prompt) + len(answer) - 1 for answer in row.answers)


def estimate(run: "Run", target: Target) -> Usage | None:
    """Return the tokens that a whole run takes; None where the model's tokenizer is not on this machine."""
    folder = models.cached(run.plan.model.source)
    if methods.load(run.plan.method).graded:
        return rewarded.estimate(run, target.limits, num_steps(run))
    return None if folder is None else _estimate(_Counted(run, folder, samples.key(run.request)))


@dataclass(frozen=True)
class _Counted:
    """A run whose rows are counted once, however often its estimate is asked for: one for a plan and its sampling."""

    run: "Run"
    folder: Path
    sampling: str

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Counted) and self._key == other._key

    @property
    def _key(self) -> tuple[str, str]:
        return self.run.plan.id, self.sampling


@cache
def _estimate(counted: _Counted) -> Usage:
    run, method = counted.run, methods.load(counted.run.plan.method)
    means = {split: _mean_tokens(counted, split) for split in run.plan.splits}
    rows = {split: planned.rows for split, planned in run.plan.splits.items()}
    steps = num_steps(run)
    read = min(steps * run.hyperparameters.batch_size, rows["train"] * run.hyperparameters.n_epochs)
    trained = means["train"] * read
    held_out = means.get("validation", 0.0) * rows.get("validation", 0)
    forward = held_out * _evaluations(run, steps)
    # A loss that is not linear needs a pass to know its gradient.
    if not method.linear:
        forward += trained
    if method.needs_reference(run.hyperparameters):
        forward += means["train"] * rows["train"] + held_out
    if method.needs_kl(run.hyperparameters):
        # The mismatched rows of each batch under the policy, and those of all epochs under the reference.
        forward += 2 * trained + held_out * (_evaluations(run, steps) + 1)
    asked = samples.most(run.request)
    prompts = min(samples.GRADED_PROMPTS if asked is None else asked, rows.get("validation", rows["train"]))
    answers = 2 * prompts * run.request.evaluation.samples_per_prompt  # of the base model, and of the tuned one
    return Usage(
        round(trained), round(forward), round(2 * prompts * max(means.values())),
        answers * run.request.evaluation.max_new_tokens,
    )  # fmt: skip


def _evaluations(run: "Run", steps: int) -> int:
    """Return how often the held-out rows are scored: on the way, and the result row by row."""
    every = evaluate_every(run.request.evaluation.every, steps)
    # An upper bound: a stop by patience leaves some out.
    return ceil(steps / every) + 1 + (run.request.evaluation.keep == "best")


def _mean_tokens(counted: _Counted, split: Split) -> float:
    tokenizer = ChatTokenizer(models.tokenizer_folder(counted.folder), sees=True)
    # The first rows stand for all, as their order says nothing of their length.
    rows = list(islice(counted.run.rows(split), COUNTED_ROWS))
    found = tokenizer.rows(rows, RemoteKeys.of(counted.run.request).max_length)
    return sum(map(row_tokens, found)) / len(rows)
