"""The wire form of each method: how a hosted service names it, what it takes and what it measures. One file per method.

A method without a file here cannot be tuned by a hosted job.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules


@dataclass(frozen=True, kw_only=True)
class WireForm:
    """A method as OpenAI-style fine-tuning services know it."""

    type: str
    """The service's name of the method."""
    columns: Mapping[str, str]
    """Our name of a metric by the service's, both without their split."""
    fixed: Mapping[str, object] = field(default_factory=dict)
    """Keys that a job does not take, each with the value that means what the service does."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """The greatest value of keys that only this method has."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Our full name of a metric by a pattern of the service's, for those that `columns` does not name."""
    extra_keys: tuple[str, ...] = ()
    """Keys that a job has next to its hyperparameters, not among them."""
    needs_validation: bool = False
    """Whether a job is refused without held-out rows."""
    paid_by_hour: bool = False
    """Whether training is paid by the hour, not by the token; the service pauses such a job at a limit of cost."""


def names() -> list[str]:
    """Return the methods that hosted services can be asked for."""
    return [module.name for module in iter_modules(__path__)]


def load(method: str) -> WireForm:
    """Return the wire form of a method."""
    form: WireForm = import_module(f"runner.hosted.methods.{method}").WIRE_FORM
    return form
