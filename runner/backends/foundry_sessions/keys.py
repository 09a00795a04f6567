"""Keys under `backend` with `backend=foundry_sessions`."""

from dataclasses import dataclass, field
from typing import Literal

from runner.backends.foundry.keys import Project
from runner.remote.keys import RemoteKeys
from runner.request.types import PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Keys under `backend.lora`: what the service lets one choose. Which layers are trained is its own choice."""

    rank: PositiveInt = 16
    """Rank of the two factors of an update; 2 to 32 are usual there."""
    alpha: PositiveFloat = 32.0
    """Scale of an update."""


@dataclass(frozen=True, kw_only=True)
class FoundrySessions(RemoteKeys):
    """Keys under `backend` with `backend=foundry_sessions`."""

    name: Literal["foundry_sessions"] = "foundry_sessions"
    """The backend."""
    lora: Lora = field(default_factory=Lora)
    """The adapter."""
    # The package's names for them; those of managed jobs are others.
    training_type: Literal["GlobalStandard", "DatazoneStandard", "DeveloperTier"] = "GlobalStandard"
    """Where the service may train, and at what price."""
    # A key, so that a request that clips elsewhere is refused with the reason.
    max_grad_norm: PositiveFloat | None = None
    """Only null: the service clips no gradients."""
    azure: Project = field(default_factory=Project)
    """Where the service is."""
