"""Where an export is sent, one module each, which ends with `DESTINATION = …`. Nowhere else is a list of them."""

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar

from runner import stores
from runner.errors import RequestError


class Destination(ABC):
    """A place that takes a folder, given as `SCHEME:REST`."""

    schemes: ClassVar[tuple[str, ...]]
    form: ClassVar[str]
    """How it is written, for messages."""

    @abstractmethod
    def demand(self, address: str) -> None:
        """Raise `RequestError` for an address that cannot be one, or a package that is not installed."""

    @abstractmethod
    def push(self, folder: Path, address: str) -> str:
        """Send a folder's files and return where they are.

        Raises `AccessError` where we are not let in, `ServiceError` where the service fails.
        """


def find(address: str) -> Destination:
    """Return the destination of an address. Raises `RequestError` with those that there are, or with its fault."""
    if fault := stores.fault_in(address):
        raise RequestError(f"push: {fault}.")
    every: list[Destination] = [import_module(f"{__name__}.{each.name}").DESTINATION for each in iter_modules(__path__)]
    # Asked by scheme before the address is looked at: which part is wrong, only the destination knows.
    for found in every:
        if address.partition(":")[0] in found.schemes:
            found.demand(address)
            return found
    raise RequestError(f"push: got {address}; allowed: {', '.join(each.form for each in every)}.")
