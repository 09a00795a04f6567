"""Evaluation of held-out rows: each row's loss, metrics and weight, of the model or of the reference.

`HeldOut` is what the loop judges a model by: rows with answers here, a model's own answers elsewhere.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from runner.methods import Scores
from runner.record.events import Event, Metrics, Progress
from runner.training import mismatched as by_mismatch
from runner.training.engine import Engine
from runner.training.evaluated import EvaluationState
from runner.training.examples import Example, Examples
from runner.training.loss import Loss, Rows

REFERENCE_ROWS = 1024
"""Rows evaluated at a time by the reference's values: no model computes, and these are a few MB."""


def mean(rows: Sequence[dict[str, float]], sources: Mapping[str, int] = MappingProxyType({})) -> dict[str, float]:
    """Return the weighted mean of rows' values, by their `eval/` names.

    Of a mixture, also those of each source, by `eval/SOURCE/`; `sources` says how many rows each has, in their order.
    """
    values, start = _mean("eval", rows), 0
    for source, count in sources.items():
        # A source without held-out rows has no mean.
        if part := rows[start : start + count]:
            values |= _mean(f"eval/{source}", part)
        start += count
    return values


def _mean(prefix: str, rows: Sequence[dict[str, float]]) -> dict[str, float]:
    total = sum(row["weight"] for row in rows)
    names = [name for name in rows[0] if name != "weight"]
    return {f"{prefix}/{name}": sum(row[name] * row["weight"] for row in rows) / total for name in names}


def evaluate(
    engine: Engine, examples: Examples, loss: Loss, step: str = "evaluate", mismatched: Examples | None = None
) -> Generator[Event, None, Rows]:
    """Return each row's loss, metrics and weight; `step` is what reports the progress.

    All rows together are the batch of a loss that is relative to it: their divergence is that of `mismatched`.
    """
    kl = 0.0
    if mismatched is not None:
        # By `evaluate` and not by `forward`: with an average of the weights these are the ones that are kept.
        apart = yield from evaluate(engine, mismatched, by_mismatch.log_ratios(loss), step)
        kl = by_mismatch.divergence(apart)
    yield from examples.ready(range(len(examples)), step)
    loss = loss.within(_targeted(examples), kl)
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
    loss = loss.within(_targeted(examples))  # the reference is no distance from itself
    for start in range(0, len(examples), REFERENCE_ROWS):
        part = [examples[number] for number in range(start, min(start + REFERENCE_ROWS, len(examples)))]
        rows += loss.rows(part, _as_reference(part))
    return rows


def _targeted(examples: Examples) -> Iterator[Example]:
    """Yield all rows if they have targets; of others the first alone is looked at."""
    if len(examples) and examples[0].targets:
        yield from (examples[number] for number in range(len(examples)))


def _as_reference(examples: Sequence[Example]) -> Scores:
    """Return the scores of rows under the reference; how many tokens it would have got right is not known."""
    import torch

    logps = torch.tensor([example.reference_logps for example in examples])
    num_tokens = torch.tensor([example.num_learned for example in examples], dtype=logps.dtype)
    # The cache keeps sums of log-probabilities, not which tokens were the likeliest; NaN says so in the
    # metric.
    return Scores(logps, num_tokens, torch.full_like(logps, torch.nan))


class GradedAnswers(Protocol):
    """Prompts that the model answers at each evaluation, and what grades the answers; that decides, not the loss."""

    @property
    def metric(self) -> str:
        """The metric that decides, `eval/GRADER`: the higher the better."""

    def graded(self, engine: Engine, step: int) -> Generator[Event, None, dict[str, float]]:
        """Return the metrics of the answers that an engine's model gives after so many optimizer steps."""


class HeldOut(Protocol):
    """What a model is judged by while it trains."""

    @property
    def metric(self) -> str:
        """The metric that decides which weights are the best, by its full name."""

    @property
    def waits(self) -> bool:
        """Whether the untrained model is judged later, with the first evaluation, as that does not need the model."""

    def __len__(self) -> int:
        """Return how many rows there are; with none nothing is evaluated."""

    def evaluate(self, engine: Engine, step: int, evaluated: EvaluationState) -> Generator[Event, None, float]:
        """Judge the model after `step` steps, yield its metrics and return what is to fall."""

    def untrained(self, evaluated: EvaluationState) -> Generator[Event, None, None]:
        """Judge the untrained model where that has waited, once."""


@dataclass(frozen=True)
class HeldOutRows:
    """Held-out rows with their loss, and the model's answers where a grader is to decide."""

    rows: Examples
    loss: Loss
    answers: GradedAnswers | None = None
    mismatched: Examples | None = None
    sources: Mapping[str, int] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The loss, as it is what training lowers, unless a grader is to decide."""
        return "eval/loss" if self.answers is None else self.answers.metric

    @property
    def waits(self) -> bool:
        """Whether the reference's values tell of the untrained model."""
        return self.loss.knows_untrained

    def __len__(self) -> int:
        return len(self.rows)

    def evaluate(self, engine: Engine, step: int, evaluated: EvaluationState) -> Generator[Event, None, float]:
        """Return the mean loss, or the mean grade with its sign turned."""
        if self.waits:
            yield from self.untrained(evaluated)
        values = mean((yield from evaluate(engine, self.rows, self.loss, "train", self.mismatched)), self.sources)
        objective = values["eval/loss"]
        if self.answers is not None:
            values |= yield from self.answers.graded(engine, step)
            objective = -values[self.answers.metric]
        yield Metrics(step, values)
        return objective

    def untrained(self, evaluated: EvaluationState) -> Generator[Event, None, None]:
        """Evaluate the model as it was before the first step by the reference's log-probabilities."""
        if not evaluated.untrained:
            rows = yield from evaluate_reference(self.rows, self.loss, "train")
            yield Metrics(0, mean(rows, self.sources))
            evaluated.untrained = True
