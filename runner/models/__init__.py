"""Where a model comes from: `SCHEME:REST`, one file a scheme, named after it.

A source module has three functions: `identify(rest, offline)` returns a digest that changes when the
weights do; `cached(rest)` returns the model's folder if it is on this machine, without the network;
`fetch(rest)` brings it here and returns that folder. For hosted models there are also `counter(rest)`, as no
folder holds a tokenizer, and `NO_NAME`, the sentence for a source without a rest.
A folder holds what transformers saves, or a
`reference.json` that names a base model and adapters to put on it (reference.py).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import cast

from runner import suggestions
from runner.data.rows import Row
from runner.errors import ModelError
from runner.tokens import ChatTokenizer


@dataclass(frozen=True)
class ModelIdentity:
    """A model: where it comes from and the digest of what it is."""

    source: str
    digest: str


def identify(source: str, *, offline: bool = False) -> ModelIdentity:
    """Return what a source names, at most asking a hub for a revision (never with `offline`).

    A run's hosted model has one identity, however the run is called: its name at the service.
    Raises `ModelError` for an unknown scheme, a malformed name, or a model that does not exist.
    """
    from runner.models import hosted

    module, rest = _source(source)
    name = hosted.name(source)
    return ModelIdentity(f"hosted:{name}" if name else source, module.identify(rest, offline))


def cached(source: str) -> Path | None:
    """Return the model's folder if it is on this machine already."""
    module, rest = _source(source)
    folder: Path | None = module.cached(rest)
    return folder


def fetch(source: str) -> Path:
    """Bring a model to this machine, once, safe against a second process, and return its folder.

    Raises `ModelError` where it cannot be had or is not what its digest promises.
    """
    module, rest = _source(source)
    folder: Path = module.fetch(rest)
    return folder


@dataclass(frozen=True)
class Counter:
    """Counts a row's tokens, a shared prompt once; `sample_rows` is how many rows are quickly counted."""

    tokens: Callable[[Row], int]
    sample_rows: int


def counter(source: str) -> Counter | None:
    """Return what counts the tokens of a model's rows, None where that is not on this machine."""
    module, rest = _source(source)
    if hasattr(module, "counter"):
        return cast("Counter | None", module.counter(rest))
    from runner.models.reference import tokenizer_folder

    folder = module.cached(rest)
    return Counter(ChatTokenizer(tokenizer_folder(folder)).total, 64) if folder else None


def cache_folder() -> Path:
    """Return the folder that is shared by all runs of a user: `RUNNER_CACHE`, else `~/.cache/runner`."""
    return Path(os.environ.get("RUNNER_CACHE") or Path.home() / ".cache" / "runner")


def quiet_transformers() -> ModuleType:
    """Return transformers with its progress bars and advice switched off: the terminal is ours."""
    import warnings

    import transformers

    warnings.filterwarnings("ignore", module="transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    module: ModuleType = transformers
    return module


def _source(source: str) -> tuple[ModuleType, str]:
    scheme, colon, rest = source.partition(":")
    known = [module.name for module in iter_modules(__path__) if module.name != "reference"]
    module = import_module(f"runner.models.{scheme}") if colon and scheme in known else None
    if module is None or not rest:
        meant = suggestions.for_source(source)
        allowed = f"got {source!r}; {f'did you mean {meant}? ' if meant else ''}allowed: one of "
        allowed += f"{', '.join(name + ':…' for name in sorted(known))}."
        raise ModelError(f"model.source: {getattr(module, 'NO_NAME', allowed)}")
    return module, rest
