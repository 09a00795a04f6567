"""Answers of which a sampler has left log-probabilities out, and what `forward` has found in their place. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from runner.models.chat.tokenizer import TokenRow
from runner.remote.engine.service import FloatArray
from runner.training.engine import Sampled


def completed(
    prompts: Sequence[Sequence[int]], answers: list[list[Sampled]], score: Callable[[Sequence[TokenRow]], FloatArray]
) -> list[list[Sampled]]:
    """Return answers with a log-probability for each token: `score` is asked once for those of which some are unknown.

    It returns those of all learned tokens under the weights that have sampled, so that ratios to them are exact.
    """
    unknown = places(answers)
    if not unknown:
        return answers
    rows = [TokenRow.answered(prompts[place], [answers[place][number].ids]) for place, number in unknown]
    return filled(answers, unknown, score(rows))


def places(answers: Sequence[Sequence[Sampled]]) -> list[tuple[int, int]]:
    """Return where answers lack the log-probability of a token: the prompt's place and the answer's number."""
    return [
        (place, number)
        for place, found in enumerate(answers)
        for number, each in enumerate(found)
        if each.ids and (len(each.logps) != len(each.ids) or np.isnan(each.logps).any())
    ]


def filled(
    answers: Sequence[Sequence[Sampled]], unknown: Sequence[tuple[int, int]], logps: FloatArray
) -> list[list[Sampled]]:
    """Return answers with the log-probabilities that were found for the unknown ones, shape (their tokens,)."""
    whole, at = [list(found) for found in answers], 0
    # All of an answer's and not the unknown ones alone: a sampler's own differ from the trainer's by 0.01 nats.
    for place, number in unknown:
        end = at + len(whole[place][number].ids)
        whole[place][number], at = replace(whole[place][number], logps=logps[at:end].tolist()), end
    return whole
