"""A text that nobody is to see: only who asks for it by name gets it, everything else shows `***`.

`$NAME`, also behind a word as in `Bearer $NAME`, is read from the environment when it is used; such a value is no
secret and shows as it was written, so that a configuration that is kept can be used again.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NoReturn

from runner.errors import AccessError

HIDDEN = "***"
Fields = Callable[[object], Collection[str]]
"""Which fields of a grader's type are mappings from a name to a secret."""
# Whole values only: `$NAME` within other text may belong to the secret itself.
_VARIABLE = re.compile(r"(?P<word>[A-Za-z]+ )?\$(?P<name>[A-Z][A-Z0-9_]*)")


class Secret:
    """A value that is shown as `***` by `repr`, `str`, f-strings and encoders, and that cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    @property
    def variable(self) -> str | None:
        """The environment variable that holds the secret; None where the secret itself is written down."""
        found = _VARIABLE.fullmatch(self._value)
        return found["name"] if found else None

    @property
    def shown(self) -> str:
        """What may be written anywhere: `$NAME` as it is, `***` in place of a secret."""
        return self._value if self.variable else HIDDEN

    def reveal(self, environment: Mapping[str, str] = os.environ) -> str:
        """Return the secret itself, for a request's header and nothing else.

        Raises `AccessError` where the variable is not set, or where only `***` was kept of the secret.
        """
        found = _VARIABLE.fullmatch(self._value)
        # A request that was read from a run's folder has this in place of a secret that was written down.
        if self._value == HIDDEN:
            raise AccessError("the secret was not kept, only ***; write $NAME in its place and set that variable.")
        if found is None:
            return self._value
        if not environment.get(found["name"]):
            raise AccessError(f"{found['name']}: not set; put it into the environment or .env.")
        return (found["word"] or "") + environment[found["name"]]

    def __repr__(self) -> str:
        return self.shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "Secret":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: it would be readable in whatever the pickle is written to")


def written(configuration: object, fields: Fields, path: str = "") -> Iterator[str]:
    """Yield where a configuration, or one within it, has a secret written down: `graders.KEY.headers.NAME`."""
    if isinstance(configuration, list):
        for number, each in enumerate(configuration):
            yield from written(each, fields, f"{path}{number}.")
    if not isinstance(configuration, Mapping):
        return
    names = fields(configuration.get("type"))
    for key, value in configuration.items():
        if key in names and isinstance(value, Mapping):
            yield from (f"{path}{key}.{name}" for name, each in value.items() if not Secret(str(each)).variable)
        else:
            yield from written(value, fields, f"{path}{key}.")


def hidden(configuration: object, fields: Fields, variables: bool = False) -> object:
    """Return a configuration as it was typed, with `***` in place of each secret, with `variables` of `$NAME`, too."""
    if isinstance(configuration, list | tuple):
        return [hidden(each, fields, variables) for each in configuration]
    if not isinstance(configuration, Mapping):
        return configuration
    names = fields(configuration.get("type"))
    return {
        key: {name: HIDDEN if variables else Secret(str(each)).shown for name, each in value.items()}
        if key in names and isinstance(value, Mapping)
        else hidden(value, fields, variables)
        for key, value in configuration.items()
    }


def decode(kind: type, value: object) -> object:
    """Make a `Secret` of a configuration's text: a `dec_hook` of msgspec, whose errors never quote the value."""
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


def encode(value: object) -> str:
    """Return what may be written of a `Secret`: an `enc_hook` of msgspec, which without it refuses to encode one."""
    if isinstance(value, Secret):
        return value.shown
    raise NotImplementedError(f"cannot encode {type(value).__name__}")
