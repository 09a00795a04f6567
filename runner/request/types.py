"""The types that keys of a request can have and `auto`.

A key's annotation is the whole rule: check.py checks values against it and words the error from it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

Auto = Literal["auto"]
PositiveInt = Annotated[int, Meta(ge=1)]
NonNegativeInt = Annotated[int, Meta(ge=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
Share = Annotated[float, Meta(gt=0, le=1)]

Values = TypeVar("Values")


def resolve_auto(values: Values, choices: Mapping[str, tuple[object, str]]) -> tuple[Values, dict[str, str]]:
    """Replace each field of a dataclass that is `auto` by its choice; return it and the reasons used, by field."""
    # A value that somebody gave needs no reason.
    used = {key: choice for key, choice in choices.items() if getattr(values, key) == "auto"}
    resolved: Values = replace(values, **{key: value for key, (value, _) in used.items()})  # type: ignore[type-var]
    return resolved, {key: reason for key, (_, reason) in used.items()}
