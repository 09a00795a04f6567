"""In-process cache, shared by the trials of a sweep that follow each other.

Of each kind the latest is held, so that a sweep over models holds one of them at a time.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

Value = TypeVar("Value")
Module = TypeVar("Module", bound="nn.Module")

# Any: what is kept has a type per kind, which only the caller of `latest` knows.
_held: dict[str, tuple[object, Any]] = {}


def latest(kind: str, key: object, make: Callable[[], Value]) -> Value:
    """Return what was made last of a kind, if it was made for the same key, else make it."""
    if kind not in _held or _held[kind][0] != key:
        _held.pop(kind, None)  # given up before the next one takes its room
        _held[kind] = key, make()
    value: Value = _held[kind][1]
    return value


def borrowed(module: Module) -> Module:
    """Return a copy of a torch module that has the same weights, not copies of them, in modules of its own.

    For weights that nobody changes: adapters and other layers may then be put into the copy.
    """
    # deepcopy takes what its memo has for an id as copied already.
    return deepcopy(module, {id(weight): weight for weight in (*module.parameters(), *module.buffers())})
