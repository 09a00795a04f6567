"""The most common answer of all: a backend that counts (backend.py), and its keys."""

from dataclasses import dataclass
from typing import Literal

from runner.request.keys import BackendKeys
from runner.request.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class Majority(BackendKeys):
    """Keys under `backend` with `backend=majority`."""

    name: Literal["majority"] = "majority"
    """The backend."""
    at_least: PositiveInt = 1
    """How often an answer has to occur to be learned."""


KEYS = Majority
