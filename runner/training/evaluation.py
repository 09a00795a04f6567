"""Evaluation of held-out rows: each row's loss, metrics and weight, of the model or of the reference."""

from collections.abc import Generator, Sequence
from contextlib import closing

from runner.methods import Scores
from runner.record.events import Event, Progress
from runner.training.engine import Engine
from runner.training.examples import Example, Examples
from runner.training.loss import Loss, Rows

REFERENCE_ROWS = 1024
"""Rows evaluated at a time by the reference's values: no model computes, and these are a few MB."""


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the weighted mean of rows' values, by their `eval/` names."""
    total = sum(row["weight"] for row in rows)
    names = [name for name in rows[0] if name != "weight"]
    return {f"eval/{name}": sum(row[name] * row["weight"] for row in rows) / total for name in names}


def evaluate(engine: Engine, examples: Examples, loss: Loss, step: str = "evaluate") -> Generator[Event, None, Rows]:
    """Return each row's loss, metrics and weight; `step` is what reports the progress."""
    yield from examples.ready(range(len(examples)), step)
    # Closed at once where the run is stopped: an engine puts its weights back before they are saved.
    with closing(engine.evaluate(examples, loss)) as work:
        while True:
            try:
                done = next(work)
            except StopIteration as finished:
                rows: Rows = finished.value
                return rows
            yield Progress(step, min(done, len(examples)), len(examples), what="held-out rows")


def evaluate_reference(examples: Examples, loss: Loss, step: str) -> Generator[Event, None, Rows]:
    """Return each row's loss, metrics and weight with the reference as policy: the model before the first step."""
    yield from examples.ready(range(len(examples)), step)
    rows: Rows = []
    for start in range(0, len(examples), REFERENCE_ROWS):
        part = [examples[number] for number in range(start, min(start + REFERENCE_ROWS, len(examples)))]
        rows += loss.rows(part, _as_reference(part))
    return rows


def _as_reference(examples: Sequence[Example]) -> Scores:
    """Return the scores of rows under the reference; how many tokens it would have got right is not known."""
    import torch

    logps = torch.tensor([example.reference_logps for example in examples])
    num_tokens = torch.tensor([example.num_learned for example in examples], dtype=logps.dtype)
    # The cache keeps sums of log-probabilities, not which tokens were the likeliest; NaN says so in the
    # metric.
    return Scores(logps, num_tokens, torch.full_like(logps, torch.nan))
