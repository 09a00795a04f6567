"""How much better an answer is than the others to its prompt: what a policy gradient multiplies its tokens by.

A reward is a number, or None for an answer that could not be graded: it is left out of what the others are compared
with, and is neither made likelier nor less likely (advantage 0).
"""

from collections.abc import Sequence
from math import sqrt
from typing import Literal

Baseline = Literal["mean", "scaled", "others"]
"""What an answer is compared with: the group's mean; the same in standard deviations; the mean of the others."""

EPSILON = 1e-4
"""Added to a standard deviation, as in TRL, so that a group whose rewards hardly differ is not blown up."""
FEWEST = 2
"""Graded answers that can be compared with each other."""


def advantages(rewards: Sequence[float | None], baseline: Baseline) -> list[float]:
    """Return the advantage of each answer of a group by the rewards of all.

    `scaled` is GRPO's (Shao et al. 2024, arXiv:2402.03300, section 4.1.2): (r - mean) / std, with n - 1 in the
    variance. `mean` leaves the division out (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783), so that prompts whose
    answers hardly differ weigh no more than others. `others` is RLOO's leave-one-out mean (Ahmadian et al. 2024,
    arXiv:2402.14740, equation 8).
    """
    graded = [reward for reward in rewards if reward is not None]
    # Exactly zero, where rounding could leave a little: a group without spread is left out by it.
    if len(graded) < FEWEST or not spread(rewards):
        return [0.0] * len(rewards)
    mean = sum(graded) / len(graded)
    scale = 1.0
    if baseline == "scaled":
        scale = 1 / (sqrt(sum((reward - mean) ** 2 for reward in graded) / (len(graded) - 1)) + EPSILON)
    elif baseline == "others":
        # r - (sum - r) / (n - 1), which is (r - mean) n / (n - 1)
        scale = len(graded) / (len(graded) - 1)
    return [0.0 if reward is None else (reward - mean) * scale for reward in rewards]


def spread(rewards: Sequence[float | None]) -> bool:
    """Say whether graded answers of a group differ in their rewards: without that there is nothing to learn from."""
    return len({reward for reward in rewards if reward is not None}) > 1
