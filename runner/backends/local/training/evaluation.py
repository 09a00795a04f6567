"""Evaluation of held-out rows: each row's loss, metrics and weight, of the model or of the reference."""

from collections.abc import Generator, Sequence
from functools import partial

import torch

from runner.backends.local.scoring.packing import num_tokens
from runner.backends.local.training.examples import Example, Examples
from runner.backends.local.training.learner import Learner
from runner.methods import Scores
from runner.record.events import Event, Progress

Rows = list[dict[str, float]]
"""The values of each row, by name."""
REFERENCE_ROWS = 1024
"""Rows evaluated at a time by the reference's values: no model computes, and these are a few MB."""


@torch.no_grad()
def evaluate(learner: Learner, examples: Examples, step: str = "evaluate") -> Generator[Event, None, Rows]:
    """Return each row's loss, metrics and weight; dropout is off meanwhile. `step` is what reports the progress."""
    yield from examples.ready(range(len(examples)), step)
    learner.model.eval()
    lengths = [num_tokens(examples[number].tokens) for number in range(len(examples))]
    # In their order, not balanced: the packs are the same however many ranks there are, and so is each row's
    # last bit.
    parts = learner.schedule.neighbours(lengths)
    found: dict[int, Rows] = {}
    for turns in learner.schedule.rounds([sum(lengths[index] for index in part) for part in parts]):
        numbers = [number for number, _ in turns]
        works = [partial(_values, learner, [examples[index] for index in parts[number]]) for number in numbers]
        found |= zip(numbers, learner.lanes.run(works), strict=True)
        # As if the others were as far: they go round by round together.
        done = learner.group.rank.world_size * sum(len(parts[number]) for number in found)
        yield Progress(step, min(done, len(examples)), len(examples), what="held-out rows")
    learner.model.train()
    # A pack that two ranks have computed has the same values twice.
    found = {number: rows for each in learner.group.all_gather(found) for number, rows in each.items()}
    return [row for number in range(len(parts)) for row in found[number]]


@torch.no_grad()
def evaluate_reference(learner: Learner, examples: Examples, step: str) -> Generator[Event, None, Rows]:
    """Return each row's loss, metrics and weight with the reference as policy: the model before the first step."""
    yield from examples.ready(range(len(examples)), step)
    rows: Rows = []
    for start in range(0, len(examples), REFERENCE_ROWS):
        part = [examples[number] for number in range(start, min(start + REFERENCE_ROWS, len(examples)))]
        rows += _values(learner, part, _as_reference(learner, part))
    return rows


def _as_reference(learner: Learner, examples: Sequence[Example]) -> Scores:
    """Return the scores of rows under the reference; how many tokens it would have got right is not known."""
    device = learner.model.device
    logps = torch.tensor([example.reference_logps for example in examples], device=device)
    num_tokens = torch.tensor([example.num_learned for example in examples], dtype=logps.dtype, device=device)
    # The cache keeps sums of log-probabilities, not which tokens were the likeliest; NaN says so in the
    # metric.
    return Scores(logps, num_tokens, torch.full_like(logps, torch.nan))


def _values(learner: Learner, part: Sequence[Example], policy: Scores | None = None) -> Rows:
    """Return loss, metrics and weight of each row of a pack."""
    values = {name: each.tolist() for name, each in learner.losses(part, policy).items()}
    weights = [learner.recipe.method.weight(example.num_learned) for example in part]
    return [
        {name: each[number] for name, each in values.items()} | {"weight": weight}
        for number, weight in enumerate(weights)
    ]
