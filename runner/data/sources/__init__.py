"""Where data comes from other than files here: `SCHEME:REST` in `dataset.train`, one file per scheme in this package.

What a source gives are files in the user's cache, which everything else reads like any others; `REST` is what follows
the scheme and its colon.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules


class Source(ABC):
    """Where data comes from. A new source is a module here that ends with `SOURCE = …`."""

    schemes: tuple[str, ...]
    """What may be before the colon."""

    def pinned(self, name: str) -> str:
        """Return the name with what it means at present, such as a commit in place of a branch; may ask the network.

        Raises `DataError` if that cannot be had.
        """
        return name

    @abstractmethod
    def files(self, name: str) -> Sequence[tuple[str, Path]]:
        """Return the files that a name means, as the user would call each and where it is, once they are here.

        What is here already needs no network. Raises `DataError` if they cannot be had.
        """


def of(name: str) -> Source | None:
    """Return the source of a name, None if it is not of the form `SCHEME:REST` with a scheme that is known."""
    scheme, colon, _ = name.partition(":")
    return by_scheme().get(scheme) if colon else None


@cache
def by_scheme() -> dict[str, Source]:
    """Return every source by each of its schemes."""
    names = [module.name for module in iter_modules(__path__)]
    found: list[Source] = [import_module(f"{__name__}.{name}").SOURCE for name in names]
    return {scheme: source for source in found for scheme in source.schemes}
