"""What was found out before the start, as a plan shows it: of graders, and of the base model by them."""

import math
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

    @property
    def shown(self) -> tuple[object, ...]:
        """What a person reads of it: scores with two digits."""
        scores = {kind: f"{score:.2f}" for kind, score in self.scores.items()}
        return self.name, self.type, scores, self.warnings, self.price


SAMPLES = 4
"""How often the base model answers each prompt."""


@dataclass(frozen=True, kw_only=True)
class BaseScores:
    """How the base model does by a grader, over so many prompts that have a grade."""

    grader: str
    prompts: int
    mean: float = math.nan
    pass_rate: float | None = None
    """The share of answers that pass; None where nothing says what passes."""
    spread: float = math.nan
    """The standard deviation of the scores of one prompt's answers: the root of the mean variance within prompts."""
    varied: int = 0
    """Prompts of which not all answers score the same."""
    characters: float = math.nan
    """Of an answer, on average."""
    cut_off: float = math.nan
    """The share of answers that the limit of tokens cut off."""
    warnings: tuple[str, ...] = ()
