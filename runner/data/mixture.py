"""A mixture of sources: how many rows of each an epoch has, and which, whatever the order they are given in.

A row is taken if its key, a hash of its content and the seed, is below a bound; the bounds give each source its number
of rows. So neither the order of rows in a file nor that of the sources decides which are taken.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from xxhash import xxh3_64_intdigest

from runner.data.json_value import Json
from runner.data.quoting import shown
from runner.data.rows import Row, canonical

ALL = 1 << 64
"""The bound of a source whose rows are all taken."""
NAME = r"^[A-Za-z0-9_.-]{1,40}$"
"""What a source may be called: it becomes part of a metric's name."""


class Mixed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A source of a mixture."""

    source: str | list[str]
    """File, glob, name of a source, or list of them."""
    weight: Annotated[float, Meta(gt=0)] | None = None
    """Its share of the rows, as a part of the sum of all weights; null, for all sources alike, takes all rows."""
    max_rows: Annotated[int, Meta(ge=1)] | None = None
    """Take at most so many of its rows."""

    @property
    def names(self) -> list[str]:
        """Its files as they are typed."""
        return [self.source] if isinstance(self.source, str) else self.source


Mix = tuple[tuple[str, Mixed], ...]
"""The sources with their names, sorted by these."""


def read(mix: Mapping[str, Json]) -> Mix:
    """Return the sources that `dataset.mix` names. Raises `ValueError` with a sentence for what is wrong."""
    found = {name: _source(name, value) for name, value in mix.items()}
    if len({each.weight is None for each in found.values()}) > 1:
        without = next(name for name, each in found.items() if each.weight is None)
        raise ValueError(f"dataset.mix.{without}: has no weight, while others have; give all sources one, or none.")
    files = [name for each in found.values() for name in each.names]
    if twice := next((name for name in files if files.count(name) > 1), None):
        raise ValueError(f"dataset.mix: {twice} is in more than one source; name it once.")
    # By name, as the order in which they were typed must not change the plan.
    return tuple(sorted(found.items()))


def _source(name: str, value: Json) -> Mixed:
    """Return a source. Raises `ValueError` with a sentence that names it, and its key."""
    if not re.fullmatch(NAME, name):
        raise ValueError(f"dataset.mix: a source is called {shown(repr(name))}; allowed: letters, digits, - _ and .")
    try:
        return msgspec.convert(value, Mixed)
    except msgspec.ValidationError as error:
        # msgspec ends with the place, which is ours to name: " - at `$.weight`".
        said, _, place = str(error).partition(" - at `$")
        raise ValueError(
            f"dataset.mix.{name}{place.rstrip('`')}: {said}; allowed: {{source: FILES, weight: NUMBER above 0, "
            "max_rows: NUMBER from 1}; what is not wanted is left out."
        ) from None


def train_of(mix: Mix) -> list[str]:
    """Return the files of all sources, as `dataset.train` has them."""
    return [name for _, each in mix for name in each.names]


def key(row: Row, seed: int) -> int:
    """Return the 64 bits by which a row is taken or not."""
    # Of the content, not of the place: a row keeps its key in whatever file, order or format it comes.
    return xxh3_64_intdigest(canonical(row), seed=seed)


def counts(mix: Mix, present: Sequence[int], room: int) -> list[int]:
    """Return how many rows of each source are taken, of those present, at most `room` in all.

    As many as there can be with the weights' shares, each rounded to a row; no row is taken twice.
    """
    have = [min(number, each.max_rows or number) for number, (_, each) in zip(present, mix, strict=True)]
    weights = [each.weight if each.weight is not None else number for number, (_, each) in zip(have, mix, strict=True)]
    total = sum(weights)
    if not total:
        return have
    shares = [weight / total for weight in weights]
    # The source that is short of rows for its share decides how many there are in all.
    rows = min([room, *(number / share for number, share in zip(have, shares, strict=True) if share)])
    # 1e-9: a share such as 0.1 is not exact in binary, and 29.999999 of 30 rows are 30.
    exact = [share * rows for share in shares]
    taken = [min(math.floor(number + 1e-9), most) for number, most in zip(exact, have, strict=True)]
    # Largest remainder (Hamilton): no share is off by a row or more.
    by_rest = sorted(range(len(mix)), key=lambda place: (taken[place] - exact[place], place))
    for place in by_rest[: math.floor(rows + 1e-9) - sum(taken)]:
        taken[place] = min(taken[place] + 1, have[place])
    return taken


def bound(keys: Sequence[int], count: int) -> int:
    """Return the bound below which `count` of some keys are; fewer where rows with the same content straddle it."""
    return ALL if count >= len(keys) else sorted(keys)[count]
