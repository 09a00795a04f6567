"""The kinds of rows, one file each, which ends with `KIND = …`; the file's name is the kind's. Nowhere else is a list.

A method learns from rows of one kind (`Method.kind`), a format holds rows of one (`Format.kind`).
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from runner.data.rows import Row


def names() -> list[str]:
    """Return the name of every kind."""
    return [module.name for module in iter_modules(__path__)]


@cache
def load(name: str) -> type[Row]:
    """Return the kind of that name, as a method or a format says it."""
    kind: type[Row] = import_module(f"{__name__}.{name}").KIND
    return kind
