"""What became of a grader that was tried before the start (rehearsal.py), as a plan shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.judging.price import Price


@dataclass(frozen=True)
class Rehearsed:
    """How a grader did on the answers that the data has: its mean score by kind of answer, and what is odd."""

    name: str
    type: str
    scores: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    price: Price | None = None
    """What its judge will cost at most."""
