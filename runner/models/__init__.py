"""Models: where they come from, and what identifies them.

A model is named by its source, `SCHEME:REST`; each scheme is a file in `sources/`.
"""

import json
import re
import shutil
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from runner.errors import ModelError
from runner.models import model_reference, sources
from runner.models.chat.tokenizer import ChatTokenizer
from runner.models.source import Counter, ModelIdentity, Source

COUNTED_ROWS = 64
"""Rows whose tokens are counted for an estimate, by a tokenizer of transformers: 64 take some 50 ms."""
# What decides a text's tokens; the other files that transformers may write are copies of these.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def identify(source: str, *, offline: bool = False) -> ModelIdentity:
    """Return the identity of a model; at most asks a hub for a revision (never with `offline`).

    A run's hosted model has one identity, whatever the run is called: its name at the service.
    Raises `ModelError` for an unknown scheme, a malformed name, or a model that does not exist.
    """
    found, rest = _parse(source)
    # A name that moves is settled first: the plan, and whatever is made from the model, keeps what it means now.
    rest = found.pinned(rest, offline)
    digest = found.identify(rest, offline)
    name = found.hosted_name(rest)
    return ModelIdentity(f"hosted:{name}" if name else f"{found.scheme}:{rest}", digest)


def cached(source: str) -> Path | None:
    """Return the folder of a model if it is on this machine already."""
    found, rest = _parse(source)
    return found.cached(rest)


def fetch(source: str) -> Path:
    """Bring a model to this machine, once, safe against a second process, and return its folder.

    Raises `ModelError` if it cannot be had or is not what its digest promises.
    """
    found, rest = _parse(source)
    return found.fetch(rest)


def hosted_name(source: str) -> str | None:
    """Return the name of a model at a hosted service; None for a model that is loaded here."""
    scheme, _, rest = source.partition(":")
    return schemes()[scheme].hosted_name(rest) if scheme in schemes() else None


def counter(source: str) -> Counter | None:
    """Return what counts the tokens of a model's rows; None if that is not on this machine."""
    found, rest = _parse(source)
    folder = found.cached(rest)
    if folder is None:
        return found.counter(rest)
    # Where rows with images are not trained on, they have been refused before they are counted.
    return Counter(ChatTokenizer(tokenizer_folder(folder), sees=True).total, COUNTED_ROWS)


def tokenizer_folder(folder: Path) -> Path:
    """Return the folder with the tokenizer of a model: its own, or that of the base model it builds on.

    Raises `ModelError` if the base model is not on this machine.
    """
    found = model_reference.read(folder)
    if found is None or found.full:
        return folder
    base = cached(found.base.source)
    if base is None:
        raise ModelError(f"{folder}: its base model {found.base.source} is not on this machine; run once to fetch it.")
    return base


def copy_tokenizer(folder: Path, to: Path) -> None:
    """Copy a tokenizer's files and the chat template to another folder, bit for bit."""
    for name in TOKENIZER_FILES:
        if (folder / name).exists():
            shutil.copy(folder / name, to / name)


def refuse_reward_model(folder: Path) -> None:
    """Raise `ModelError` where a folder holds a reward model and one that answers is wanted."""
    # transformers would load it without a word, with an output layer of random numbers.
    if is_reward_model(folder):
        raise ModelError(
            f"{folder}: a reward model, which scores answers and gives none; name it as `model` of a grader of type "
            "reward_model."
        )


def is_reward_model(folder: Path) -> bool:
    """Say whether a folder holds a model with a head for sequences, as `method=reward` saves it."""
    path = folder / "config.json"
    found: dict[str, object] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    names = found.get("architectures")
    return isinstance(names, list) and any(str(name).endswith("ForSequenceClassification") for name in names)


def quiet_transformers() -> ModuleType:
    """Return transformers with its progress bars and advice switched off: the terminal is ours."""
    import warnings

    import transformers

    # Advice for who writes training loops; what users can act on we say ourselves.
    warnings.filterwarnings("ignore", module="transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    module: ModuleType = transformers
    return module


@cache
def schemes() -> dict[str, Source]:
    """Return every source by its scheme."""
    names = [module.name for module in iter_modules(sources.__path__)]
    found: list[Source] = [import_module(f"runner.models.sources.{name}").SOURCE for name in names]
    return {each.scheme: each for each in found}


def suggest(text: str) -> str | None:
    """Return the source that a text without a scheme means: a folder here, or ORG/NAME on Hugging Face's hub."""
    if Path(text).is_dir():
        return f"path:{text}"
    # Asked of nobody: whether the hub has it is seen when it is fetched.
    return f"hf:{text}" if re.fullmatch(r"[\w-]+/[\w.-]+", text) else None


def _parse(source: str) -> tuple[Source, str]:
    scheme, colon, rest = source.partition(":")
    found = schemes().get(scheme) if colon else None
    if found is None or not rest:
        meant = suggest(source)
        allowed = ", ".join(f"{name}:…" for name in sorted(schemes()))
        general = f"got {source!r}; {f'did you mean {meant}? ' if meant else ''}allowed: one of {allowed}."
        raise ModelError(f"model.source: {(found and found.no_rest) or general}")
    return found, rest
