"""Reinforcement fine-tuning: the model answers prompts, a grader scores the answers, and better ones become likelier.

The reward is the grader's score. The keys are those of hosted reinforcement jobs, by the service's names:
https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reinforcement-fine-tuning
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runner.methods import Hyperparameters, Method, Metric
from runner.request.types import Auto, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class RFT(Hyperparameters):
    """Keys under `rft`, named as hosted services name them."""

    grader: str | dict[str, Any] = "???"
    """What scores answers: a name in `conf/grader/`, a file, or the service's JSON."""
    response_format: dict[str, Any] | None = None
    """The form of answers: `{type: json_schema, json_schema: {name: …, strict: true, schema: {…}}}`; null is text."""
    eval_interval: PositiveInt | Auto = "auto"
    """Optimizer steps between evaluations on the held-out rows."""
    eval_samples: PositiveInt | Auto = "auto"
    """Answers to each held-out row in an evaluation."""
    compute_multiplier: PositiveFloat | Auto = "auto"
    """Factor on the number of answers sampled for each prompt; the price grows nearly with it."""
    reasoning_effort: Literal["default", "low", "medium", "high"] | Auto = "auto"
    """How long a reasoning model thinks; low is cheaper. Models that do not reason may refuse it."""


class ReinforcementFineTuning(Method[RFT]):
    """Learn from graded answers to prompts."""

    name = "rft"
    kind = "problem"
    graded = True
    hyperparameters = RFT
    metrics = (
        Metric("reward", "reward", headline=True),
        Metric("parse_errors", "answers that cannot be read", lower_is_better=True, is_share=True),
        # Longer answers are neither better nor worse; what grows without bound is seen in a chart.
        Metric("answer_tokens", "tokens of an answer", lower_is_better=True, shown=False),
        Metric("reasoning_tokens", "tokens of reasoning", lower_is_better=True, shown=False),
    )
    headline = "reward"

    def resolve(self, hyperparameters: RFT, num_rows: int) -> tuple[RFT, Mapping[str, str]]:
        """Return the keys as they are: each `auto` is left to the service."""
        return hyperparameters, {}

    def problems(self, hyperparameters: RFT) -> Iterable[str]:
        """Return a sentence for a response format in another form than the service's."""
        form = hyperparameters.response_format
        if form is None:
            return
        schema = form.get("json_schema")
        nested = (
            isinstance(schema, dict) and isinstance(schema.get("name"), str) and isinstance(schema.get("schema"), dict)
        )
        if form.get("type") != "json_schema" or not nested:
            yield (
                f"rft.response_format: got {form}; allowed: "
                "{type: json_schema, json_schema: {name: NAME, strict: true, schema: {…}}}, or null for text."
            )

    def shown(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys of a plan with the grader by its name, as its configuration may have many lines."""
        grader, form = hyperparameters["grader"], hyperparameters["response_format"]
        told = {"rft.grader": f"{grader['name']} ({grader['type']})"}
        return super().shown(hyperparameters) | told | {"rft.response_format": form and form["json_schema"]["name"]}


METHOD = ReinforcementFineTuning()
