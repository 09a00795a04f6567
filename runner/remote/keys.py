"""Keys of every backend that drives a remote engine."""

from dataclasses import dataclass, field
from typing import Literal

from runner.request.keys import BackendKeys
from runner.request.types import Auto, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Keys under `backend.runtime`: how the work is done, never what comes out; not part of the plan's identity."""

    checkpoint_every: PositiveInt | Auto = "auto"
    """Optimizer steps between checkpoints: the most that can be trained, and paid for, twice."""
    patience: PositiveFloat = 900.0
    """Seconds a failing service is asked again before the runner gives up; what is saved is kept."""


@dataclass(frozen=True, kw_only=True)
class RemoteKeys(BackendKeys):
    """Keys under `backend` of a remote engine, as far as all services have them."""

    learning_rate: PositiveFloat | Auto = "auto"
    """Peak learning rate before `learning_rate_multiplier`."""
    max_length: PositiveInt = 1024
    """Tokens of prompt + answer; longer rows are cut at the end, with a warning."""
    # For a first try, and for sweeps that compare beginnings.
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps, whatever n_epochs says."""
    warmup_ratio: Fraction = 0.1
    """Share of the steps in which the learning rate climbs to its peak."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """The course of the learning rate after that."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decay of the adapter's weights."""
    prices: str | None = None
    """A YAML file with prices, to take instead of the one that comes with the runner."""
    runtime: Runtime = field(default_factory=Runtime)
    """How the work is done."""
