"""Where a model comes from: `SCHEME:REST`, one file a scheme, named after it.

A source module has three functions: `identify(rest, offline)` returns a digest that changes when the
weights do; `cached(rest)` returns the model's folder if it is on this machine, without the network;
`fetch(rest)` brings it here and returns that folder. A folder holds what transformers saves, or a
`reference.json` that names a base model and adapters to put on it (reference.py).
"""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from runner.errors import ModelError


@dataclass(frozen=True)
class ModelIdentity:
    """A model: where it comes from and the digest of what it is."""

    source: str
    digest: str


def identify(source: str, *, offline: bool = False) -> ModelIdentity:
    """Return what a source names, at most asking a hub for a revision (never with `offline`).

    Raises `ModelError` for an unknown scheme, a malformed name, or a model that does not exist.
    """
    module, rest = _source(source)
    return ModelIdentity(source, module.identify(rest, offline))


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
    if not colon or scheme not in known or not rest:
        raise ModelError(
            f"model.source: got {source!r}; allowed: one of {', '.join(name + ':…' for name in sorted(known))}."
        )
    return import_module(f"runner.models.{scheme}"), rest
