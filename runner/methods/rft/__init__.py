"""Reinforcement fine-tuning: the model answers prompts, a grader scores the answers, and better ones become likelier.

The reward is the grader's score. A policy gradient over groups of answers to the same prompt makes those likelier that
score better than the others (advantages.py, losses/). The first keys are those of hosted reinforcement jobs, by the
service's names, and those of `LoopKeys` are for our own loop:
https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reinforcement-fine-tuning
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from runner.methods import KL, Hyperparameters, Method, Metric, Scores
from runner.methods.rft import losses
from runner.methods.rft.losses import LoopKeys, Tokens
from runner.request.types import Auto, PositiveFloat, PositiveInt, resolve_auto

if TYPE_CHECKING:
    from torch import Tensor

USUAL_GROUP = 8
"""Answers to a prompt: the size that papers and other trainers begin with."""
FEWEST_ANSWERS = 2
"""Of a group: one alone has nothing to be compared with."""


@dataclass(frozen=True, kw_only=True)
class RFT(Hyperparameters, LoopKeys):
    """Keys under `rft`, named as hosted services name them where they have them."""

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
    loop_keys = frozenset(each.name for each in fields(LoopKeys))
    service_keys = frozenset({"response_format", "reasoning_effort"})
    metrics = (
        Metric("reward", "reward", headline=True),
        Metric("parse_errors", "answers that cannot be read", lower_is_better=True, is_share=True),
        Metric("ungraded", "answers without a grade", lower_is_better=True, is_share=True),
        # Longer answers are neither better nor worse; what grows without bound is seen in a chart.
        Metric("answer_tokens", "tokens of an answer", lower_is_better=True, shown=False),
        Metric("truncated", "answers that were cut off", lower_is_better=True, is_share=True, shown=False),
        Metric("reasoning_tokens", "tokens of reasoning", lower_is_better=True, shown=False),
        Metric("entropy", "entropy a token", shown=False),
        Metric("without_spread", "groups without spread", lower_is_better=True, is_share=True, shown=False),
        KL,
        Metric("clipped", "tokens that were clipped", lower_is_better=True, is_share=True, shown=False),
    )
    headline = "reward"

    def passes(self, hyperparameters: RFT) -> int:
        """Return how often each prompt is learned from: each rollout in several steps where that is asked for."""
        times = hyperparameters.updates_per_rollout
        assert times != "auto"
        return super().passes(hyperparameters) * times

    def interval(self, hyperparameters: RFT, asked: int | Literal["auto"]) -> int | Literal["auto"]:
        """Return `eval_interval`, else what is asked for."""
        return asked if hyperparameters.eval_interval == "auto" else hyperparameters.eval_interval

    def by_token(self, hyperparameters: RFT) -> bool:
        """Say that ratios to the policy that sampled are those of tokens."""
        return True

    def loss(
        self, policy: Scores, reference_logps: "Tensor | None", hyperparameters: RFT
    ) -> tuple["Tensor", dict[str, "Tensor"]]:
        """Return the loss of each group of answers and its metrics, all of shape (rows,).

        `policy.experience` says how the answers did, and how likely they were. The KL divergence is Schulman's k3
        (http://joschu.net/blog/kl-approx.html), e^(ref - logp) - (ref - logp) - 1, times the ratio, as in TRL: without
        that its gradient is not the divergence's once ratios leave 1.
        """
        keys, known, tokens = hyperparameters, policy.experience, policy.tokens
        assert known is not None
        assert tokens is not None
        chosen = losses.LOSSES[keys.loss_type]
        old = tokens.logps.detach() if known.old_logps is None else known.old_logps
        ratios = _ratios(policy, tokens.logps - old, chosen.ratio)
        scored = Tokens(tokens.logps, ratios, known.advantages.flatten()[tokens.owner])
        each = chosen.function(scored, **{key: getattr(keys, key) for key in chosen.keys})
        found: dict[str, Tensor] = {}
        # RLOO's divergence is in the reward already, so that its advantages hold it.
        if known.reference_logps is not None and not chosen.kl_in_reward:
            assert keys.beta != "auto"
            apart = known.reference_logps - tokens.logps
            kl = (apart.exp() - apart - 1) * ratios
            each = each + keys.beta * kl
            found["kl"] = _token_mean(policy, kl.detach())
        # Without old log-probabilities all ratios are 1, and nothing can be clipped.
        if known.old_logps is not None and "epsilon" in chosen.keys:
            found["clipped"] = _token_mean(policy, _clipped(scored, keys))
        return _together(policy, each, keys), found

    def weight(self, num_tokens: tuple[int, ...], hyperparameters: RFT) -> float:
        """Return how much a group counts: by its tokens where the loss is a mean over tokens, else the same."""
        by_token = losses.LOSSES[hyperparameters.loss_type].mean == "token"
        return float(sum(num_tokens)) if by_token else 1.0

    def resolve(self, hyperparameters: RFT, num_rows: int) -> tuple[RFT, Mapping[str, str]]:
        """Replace every `auto` by the value of our own loop, with the reason by key; a service has its own."""
        # The service's key for more answers a prompt, so that one YAML asks both for more.
        factor = hyperparameters.compute_multiplier
        times = 1.0 if factor == "auto" else factor
        choices: losses.Choices = {
            "n_epochs": (3 if num_rows < 1000 else 1, "3 below 1,000 rows, else 1"),
            "batch_size": (8, "prompts a step; each is answered by a whole group"),
            "learning_rate_multiplier": (1.0, "the backend's own rate"),
            "eval_samples": (1, "as at the service"),
            "compute_multiplier": (1.0, "no more answers than usual"),
            "group_size": (max(FEWEST_ANSWERS, round(USUAL_GROUP * times)), f"{USUAL_GROUP} × rft.compute_multiplier"),
        }
        return resolve_auto(hyperparameters, choices | losses.choices(hyperparameters))

    def problems(self, hyperparameters: RFT) -> Iterable[str]:
        """Return a sentence for each key that the loss does not know, and for another response format than theirs."""
        yield from losses.problems(hyperparameters)
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

    def unused(self, hyperparameters: RFT) -> Iterable[str]:
        """Return the keys that the chosen loss does not know."""
        return losses.unused(hyperparameters)

    def shown(self, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys of a plan with the grader by its name, as its configuration may have many lines."""
        grader, form = hyperparameters["grader"], hyperparameters.get("response_format")
        grader_shown = {"rft.grader": f"{grader['name']} ({grader['type']})"}
        named = {"rft.response_format": form["json_schema"]["name"]} if form else {}
        return super().shown(hyperparameters) | grader_shown | named


def _ratios(policy: Scores, log_ratios: "Tensor", kind: losses.Ratio) -> "Tensor":
    """Return the ratio to the old policy of each token, shape (tokens,); those of whole answers at all their tokens."""
    if kind == "token":
        return log_ratios.exp()
    assert policy.tokens is not None
    answers = policy.summed(log_ratios)
    if kind == "answer_mean":
        answers = answers / policy.num_tokens.clamp(min=1)
    return answers.exp().flatten()[policy.tokens.owner]


def _together(policy: Scores, each: "Tensor", keys: RFT) -> "Tensor":
    """Return the losses of groups, shape (rows,), out of those of tokens, shape (tokens,)."""
    sums, mean = policy.summed(each), losses.LOSSES[keys.loss_type].mean
    if mean == "answer":
        # An answer that is masked whole counts as zero, as in TRL.
        return (sums / policy.num_tokens.clamp(min=1)).mean(1)
    if mean == "token":
        return sums.sum(1) / policy.num_tokens.sum(1).clamp(min=1)
    assert keys.max_new_tokens != "auto"
    return sums.mean(1) / keys.max_new_tokens


def _token_mean(policy: Scores, each: "Tensor") -> "Tensor":
    return policy.summed(each).sum(1) / policy.num_tokens.sum(1).clamp(min=1)


def _clipped(tokens: Tokens, keys: RFT) -> "Tensor":
    """Return 1 for each token whose gradient is cut off, as its ratio has gone far enough in the right direction."""
    assert keys.epsilon != "auto"
    assert keys.epsilon_high != "auto"
    low = (tokens.ratios < 1 - keys.epsilon) & (tokens.advantages < 0)
    high = (tokens.ratios > 1 + keys.epsilon_high) & (tokens.advantages > 0)
    return (low | high).to(tokens.logps.dtype)


METHOD = ReinforcementFineTuning()
