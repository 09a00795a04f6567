"""How many tokens a plan's rows are, counted on a sample of them, and what its job takes.

Nothing is guessed: where the model's tokens cannot be counted here there is no number.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from runner import backends, models
from runner.backends import Cost
from runner.data.rows import Row
from runner.data.selection import Split

if TYPE_CHECKING:
    from runner.plan import Proposal


@dataclass(frozen=True)
class Tokens:
    """Tokens of each split, a shared prompt counted once, and whether all rows were counted."""

    splits: dict[Split, int]
    exact: bool


def tokens(proposal: "Proposal") -> Tokens | None:
    """Return how many tokens the rows are, or None where the model's tokenizer is not on this machine."""
    counter = models.counter(proposal.job.plan.model.source)
    if counter is None:
        return None
    splits = proposal.survey.splits
    counted = {split: _count(proposal, split, counter.tokens, counter.sample_rows) for split in splits}
    return Tokens(counted, all(split.rows <= counter.sample_rows for split in splits.values()))


def _count(proposal: "Proposal", split: Split, count: Callable[[Row], int], sample_rows: int) -> int:
    counted = [count(row) for row in islice(proposal.job.rows(split), sample_rows)]
    return round(sum(counted) / len(counted) * proposal.survey.splits[split].rows)


def together(proposals: Iterable["Proposal"]) -> Cost:
    """Return what jobs take together: not known where one of them is not. Rows that they share are counted once."""
    counted: dict[str, Tokens | None] = {}
    found = Cost(0.0, 0.0)
    for proposal in proposals:
        plan = proposal.job.plan
        rows = repr((plan.model, plan.train, plan.validation))
        if rows not in counted:
            counted[rows] = tokens(proposal)
        found += backends.load(plan.backend).cost(proposal.job, counted[rows])
    return found
