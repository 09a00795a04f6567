"""What a model source is: `SCHEME:REST` in `model.source`, one file per scheme in `sources/`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runner.data.rows import Row


@dataclass(frozen=True)
class ModelIdentity:
    """A model: where it comes from, and a digest that changes when its weights do."""

    source: str
    digest: str


@dataclass(frozen=True)
class Counter:
    """Counts the tokens of a row, a shared prompt once; `sample_rows` is how many rows are counted quickly."""

    tokens: Callable[[Row], int]
    sample_rows: int


class Source(ABC):
    """Where models come from. A new source is a module in `sources/` that ends with `SOURCE = …`.

    A model's folder holds what transformers saves, or a `reference.json` that names a base model and the adapters to
    put on it (model_reference.py). `rest` is what follows the scheme and its colon.
    """

    scheme: str
    """What is before the colon."""
    no_rest: str | None = None
    """The error if nothing follows the colon; None for the general one."""

    served: bool = False
    """Whether a service answers by it when it is asked; its weights are loaded here only below an adapter."""

    def pinned(self, rest: str, offline: bool = False) -> str:
        """Return the name that never changes for what `rest` means now, `rest` itself where there is none.

        Raises `ModelError` for what does not exist; `offline` forbids the network.
        """
        return rest

    @abstractmethod
    def identify(self, rest: str, offline: bool = False) -> str:
        """Return a digest that changes when the weights do; `offline` forbids the network.

        Raises `ModelError` for a malformed name or a model that does not exist.
        """

    @abstractmethod
    def cached(self, rest: str) -> Path | None:
        """Return the folder of the model if it is on this machine; never uses the network."""

    @abstractmethod
    def fetch(self, rest: str) -> Path:
        """Bring the model to this machine and return its folder; safe against a second process.

        Raises `ModelError` if it cannot be had or is not what its digest promises.
        """

    def hosted_name(self, rest: str) -> str | None:
        """Return the name of the model at a hosted service; None for a model that is loaded here."""
        return None

    def counter(self, rest: str) -> Counter | None:
        """Return what counts the tokens of a model that has no folder; None if they cannot be counted here."""
        return None
