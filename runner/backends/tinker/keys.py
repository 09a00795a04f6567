"""Keys under `backend` with `backend=tinker`."""

from dataclasses import dataclass, field
from typing import Literal

from runner.remote.keys import RemoteKeys, Runtime
from runner.request.types import PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Keys under `backend.lora`: what the service lets one choose. Its scale, alpha, is the service's own."""

    rank: PositiveInt = 16
    """Rank of the two factors of an update; a power of two."""
    train_attn: bool = True
    """Give the attention layers an adapter."""
    train_mlp: bool = True
    """Give the MLP layers an adapter, those of experts included."""
    # False, where the service's own default is true: the local backend leaves the output layer alone, and merging an
    # adapter into one that shares its weights with the embeddings would change those, too.
    train_unembed: bool = False
    """Give the output layer an adapter."""


@dataclass(frozen=True, kw_only=True)
class TinkerRuntime(Runtime):
    """Keys under `backend.runtime`: how the work is done, never what comes out; not part of the plan's identity."""

    checkpoint_days: PositiveInt = 7
    """Days that the service keeps checkpoints that are not the result."""


@dataclass(frozen=True, kw_only=True)
class TinkerKeys(RemoteKeys):
    """Keys under `backend` with `backend=tinker`."""

    name: Literal["tinker"] = "tinker"
    """The backend."""
    lora: Lora = field(default_factory=Lora)
    """The adapter."""
    max_grad_norm: PositiveFloat | None = 1.0
    """Gradients longer than this are scaled down to it; null leaves them as they are."""
    runtime: TinkerRuntime = field(default_factory=TinkerRuntime)
    """How the work is done."""
    url: str | None = None
    """Where the service is; null takes TINKER_BASE_URL (environment, .env), else Thinking Machines' own address."""
