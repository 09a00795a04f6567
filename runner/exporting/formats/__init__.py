"""The forms that a model is exported to, one file or package each, which ends with `EXPORTER = …`."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from runner.errors import RequestError
from runner.exporting.exporter import Exporter


def names() -> list[str]:
    """Return the name of every form."""
    return [module.name for module in iter_modules(__path__)]


@cache
def load(name: str) -> Exporter:
    """Return the exporter of a form. Raises `RequestError` with those that there are."""
    if name not in names():
        raise RequestError(f"format: got {name}; allowed: {', '.join(names())}.")
    # Importing one brings none of its libraries: those are imported where it writes.
    found: Exporter = import_module(f"{__name__}.{name}").EXPORTER
    return found
