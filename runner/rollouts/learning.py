"""Graded answers as what a loss is a function of: examples with advantages and log-probabilities. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isnan

import msgspec

from runner.methods.rft import RFT
from runner.methods.rft.advantages import advantages
from runner.methods.rft.losses import LOSSES
from runner.models.chat.tokenizer import TokenRow
from runner.rollouts import signals
from runner.rollouts.sampled import Group
from runner.training.batches import Batch
from runner.training.examples import Example, Rewarded, num_learned
from runner.training.loss import Loss

Reference = Callable[[Sequence[TokenRow]], list[list[float]]]
"""The log-probability of each learned token of some rows under the base model."""


def batch(
    groups: Sequence[Group], rewards: signals.Rewards, keys: RFT, loss: Loss, reference_of: Reference,
    values: Mapping[str, float],
) -> Batch:  # fmt: skip
    """Return groups as what the loss is a function of; those that have no gradient only count in its mean.

    `reference_of` is asked where `rft.beta` is above 0. `values` go with the batch.
    """
    loss_type = LOSSES[keys.loss_type]
    beta = msgspec.convert(keys.beta, float)  # 0 where nothing is held to the base model
    tokens = [_token_row(group, keys.mask_truncated) for group in groups]
    # Not computed for the groups that are left out below, unless all are pulled towards the reference.
    references = reference_of(tokens) if beta else [None] * len(groups)
    if beta and loss_type.kl_in_reward:
        apart = [_apart(group, row, each) for group, row, each in zip(groups, tokens, references, strict=True)]
        values = {**values, "kl": _mean_kl(apart, tokens)}
        rewards = [_less(own, beta, each) for own, each in zip(rewards, apart, strict=True)]
    # The policy that sampled is the one that learns, so its log-probabilities are known from the pass itself.
    once = keys.updates_per_rollout == 1
    examples = [
        Example(row, None, rewarded=Rewarded(
            tuple(advantages(own, loss_type.baseline)), None if once else _old_logps(group, row),
            None if loss_type.kl_in_reward else reference,
        ))
        for group, row, own, reference in zip(groups, tokens, rewards, references, strict=True)
    ]  # fmt: skip
    pulled = beta > 0 and not loss_type.kl_in_reward
    kept = [each for each in examples if any(num_learned(each.tokens)) and (pulled or _has_gradient(each))]
    # The mean is over the whole batch, as if the others had been computed: their gradient is zero.
    return Batch(kept, replace(loss, whole=loss.total(examples)), values)


def _has_gradient(example: Example) -> bool:
    assert example.rewarded is not None
    learned = zip(num_learned(example.tokens), example.rewarded.advantages, strict=True)
    return any(count and advantage for count, advantage in learned)


def _token_row(group: Group, mask_truncated: bool) -> TokenRow:
    """Return a group as a row: its prompt once, every token of its answers learned, but of those that are masked."""
    learned = tuple([each.ended or not mask_truncated] * len(each.ids) for each in group.answers)
    return TokenRow(group.prompt, tuple(each.ids for each in group.answers), learned)


def _old_logps(group: Group, row: TokenRow) -> list[float]:
    """Return the log-probability of each learned token as it was sampled."""
    pairs = zip(group.answers, row.learned, strict=True)
    return [logp for each, learned in pairs for logp, wanted in zip(each.logps, learned, strict=True) if wanted]


def _apart(group: Group, row: TokenRow, reference: Sequence[float] | None) -> list[float]:
    """Return of each answer the log-ratio of the policy that sampled to the reference, in nats."""
    assert reference is not None
    old, start, found = _old_logps(group, row), 0, list[float]()
    for count in num_learned(row):
        found.append(sum(old[start : start + count]) - sum(reference[start : start + count]))
        start += count
    return found


def _mean_kl(apart: Sequence[Sequence[float]], tokens: Sequence[TokenRow]) -> float:
    return sum(map(sum, apart)) / max(1, sum(sum(num_learned(row)) for row in tokens))


def _less(rewards: Sequence[float | None], beta: float, apart: Sequence[float]) -> list[float | None]:
    """Return rewards with beta · log-ratio taken off."""
    assert not any(map(isnan, apart))
    return [None if own is None else own - beta * each for own, each in zip(rewards, apart, strict=True)]
