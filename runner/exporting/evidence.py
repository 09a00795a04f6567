"""What a model is asked so that two programs can be compared, and what it answered: values, as JSON between processes.

All that reaches a model is in token ids here, so that a template or a tokenizer that differs cannot hide in a text.
"""

from collections.abc import Sequence

import msgspec

from runner.data.rows import Turns

Ids = list[int]


class Scored(msgspec.Struct, frozen=True):
    """A held-out row: its conversation, and the tokens of its answer after those of its prompt."""

    messages: Turns
    # Ids and no text: a program's own tokenizer is compared apart, and must not decide what is scored.
    prompt: Ids
    answer: Ids


class Questions(msgspec.Struct, frozen=True):
    """What is asked: `prompts` to answer greedily, rows whose answers are `scored`, the ids that end an answer."""

    prompts: list[Turns]
    scored: list[Scored]
    ends: Ids
    max_new_tokens: int


class Evidence(msgspec.Struct, frozen=True):
    """What a program said, in the order of the questions."""

    prompts: list[Ids]
    """Each prompt as its own chat template and tokenizer write it."""
    conversations: list[Ids]
    """Each row with its answer likewise."""
    # Each token's and not the sum's, in which two mistakes may cancel.
    logps: list[list[float]]
    """The log-probability of each token of each answer, in nats."""
    # Without the white space at both ends, which servers strip and transformers keeps.
    replies: list[str]
    """The greedy answers, without white space around them."""
    ends: Ids
    """The ids that it says end an answer."""
    stops: list[bool]
    """Whether it stops when the model says the id, for each of the questions' `ends`."""


def flat(values: Sequence[Sequence[float]]) -> list[float]:
    """Return the values of all rows, one after the other."""
    return [value for row in values for value in row]
