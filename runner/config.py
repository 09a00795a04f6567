"""The request: every key that can be typed, its default, meaning and range; and its check.

The keys under `dpo`, `sft` and `backend` stand beside their owners (`runner/methods/`,
`runner/backends/`). Hydra composes YAML over these defaults; `request` turns the result into frozen values
or says what is wrong, one sentence a key.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Literal, get_type_hints

import msgspec
from msgspec import inspect

import runner.backends
import runner.methods
from runner import command, run_folders
from runner.errors import RequestError
from runner.values import Auto, Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Keys under `dataset`."""

    train: str | list[str] = "???"
    """File, glob or list of them: JSONL, JSON array, CSV or Parquet."""
    validation: str | list[str] | None = None
    """Held-out rows, likewise."""
    format: str = "auto"
    """Shape of the rows; auto recognises it from the first ones."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """Refuse data with rows that cannot be trained on, or leave those out."""
    validation_fraction: Fraction = 0.0
    """Without `validation`: the share of the training rows to hold out."""
    split_seed: NonNegativeInt = 0
    """Which rows are held out; a row stays where it is when others are added."""
    max_rows: PositiveInt | None = None
    """Use only the first so many rows of each split."""
    style: str | None = None
    """A regular expression that a whole answer in the style taught here matches; sampled answers are counted by it."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Keys under `model`."""

    source: str = "???"
    """`pypi:NAME@VERSION@sha256:…`, `hf:ORG/NAME@REVISION`, `path:FOLDER`, or `run:RUN` for a run's result."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Keys under `evaluation`."""

    every: PositiveInt | Auto = "auto"
    """Optimizer steps between evaluations on the held-out rows; auto: at the start, half-way, at the end."""
    keep: Literal["best", "last"] = "last"
    """Which checkpoint becomes the result: the last, or the one with the lowest held-out loss."""
    patience: PositiveInt | None = None
    """Stop training when the held-out loss has not fallen in so many evaluations; local only."""
    max_rows: PositiveInt | None = None
    """Use only the first so many held-out rows."""
    samples: NonNegativeInt = 10
    """Held-out prompts answered by the base and the tuned model."""
    max_new_tokens: PositiveInt = 128
    """Tokens an answer may take."""


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Keys under `tracking`."""

    enabled: bool = True
    """Log to MLflow."""
    uri: str | None = None
    """Where; null takes MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the current folder."""
    experiment: str = "runner"
    """The MLflow experiment."""
    register: str | None = None
    """Also register the resulting model under this name (`models:/NAME`)."""


@dataclass(frozen=True, kw_only=True)
class Top:
    """Keys at the top."""

    name: str = "auto"
    """What the run is called; auto takes method and data set, with `hosted-` before it for a hosted job."""
    mode: Literal["run", "plan"] = "run"
    """`plan` checks the data and prints the plan; nothing is created, sent or trained."""
    again: bool = False
    """Run a plan once more that is finished, or whose hosted job failed; an unfinished one goes on."""
    seed: NonNegativeInt = 42
    """Order of the rows, initial adapter, dropout."""
    runs_folder: str = "runs"
    """Folder of the run folders."""
    max_price: NonNegativeFloat | None = None
    """Dollars; a hosted run or sweep that costs more by the table of prices, or has no price, starts if agreed to."""
    sweep: str | None = None
    """The sweep that a trial belongs to; `-m` sets it by itself."""
    search: str | None = None
    """The search that proposed a trial, `FILE#NUMBER`; `hydra/sweeper=optuna` sets it by itself."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asked for, checked: types and ranges hold, `auto` may still stand."""

    top: Top
    dataset: Dataset
    model: Model
    evaluation: Evaluation
    tracking: Tracking
    method: str
    hyperparameters: Any
    backend: Any


SECTIONS: dict[str, type] = {"dataset": Dataset, "model": Model, "evaluation": Evaluation, "tracking": Tracking}


def request(composed: Any) -> Request:
    """Check a composed configuration and return it as frozen values.

    Raises `RequestError` with one line for each key that is unknown, missing, of the wrong type or out of range, or
    does not go with the others.
    """
    gone = [section for section in ("method", "backend", *SECTIONS) if section not in composed]
    if gone:
        raise RequestError(f"{gone[0]}: missing; every request needs one; leave out ~{gone[0]}.")
    method, backend = str(composed["method"]), str(composed["backend"]["name"])
    owners = SECTIONS | {method: runner.methods.load(method).hyperparameters}
    owners["backend"] = runner.backends.load(backend).settings
    top = {key: value for key, value in composed.items() if key not in owners and key != "method"}
    problems = [*_problems("", top, Top)]
    for section, owner in owners.items():
        problems += _problems(f"{section}.", composed.get(section) or {}, owner)
    problems = problems or [
        *_name_problems(top),
        *_dataset_problems(composed["dataset"]),
        *_secret_problems(composed["tracking"]),
    ]
    if problems:
        raise RequestError("\n".join(problems))
    values: dict[str, Any] = {
        section: msgspec.convert(composed.get(section) or {}, owner) for section, owner in owners.items()
    }
    hyperparameters = values.pop(method)
    problems = [*runner.methods.load(method).problems(hyperparameters)]
    if problems:
        raise RequestError("\n".join(problems))
    return Request(top=msgspec.convert(top, Top), method=method, hyperparameters=hyperparameters, **values)


def as_composed(request: Request) -> dict[str, Any]:
    """Return a request in the form that `request` takes."""
    sections: dict[str, Any] = {name: asdict(getattr(request, name)) for name in SECTIONS}
    owned = {"method": request.method, request.method: asdict(request.hyperparameters)}
    return asdict(request.top) | sections | owned | {"backend": asdict(request.backend)}


def _problems(prefix: str, values: Mapping[str, Any], owner: type) -> Iterator[str]:
    """Yield a sentence for each wrong key of one section, nested sections included."""
    known = {each.name: each for each in fields(owner)}
    for key in values:
        if key not in known:
            yield f"{prefix}{key}: no such key; {_allowed_keys(key, prefix, known)}."
    hints = get_type_hints(owner, include_extras=True)
    for key in known:
        value = values.get(key, "???" if known[key].default is MISSING else known[key].default)
        if is_dataclass(hints[key]) and isinstance(hints[key], type):
            yield from _problems(f"{prefix}{key}.", values.get(key) or {}, hints[key])
        elif value == "???":
            yield f"{prefix}{key}: missing; give it {describe(hints[key])}, in YAML or as {prefix}{key}=…"
        else:
            try:
                msgspec.convert(value, hints[key])
            except msgspec.ValidationError:
                yield f"{prefix}{key}: got {value!r}; allowed: {describe(hints[key])}."


def _name_problems(top: Mapping[str, Any]) -> Iterator[str]:
    name = top.get("name", "auto")
    if not re.fullmatch(r"\w[\w.-]{0,79}", name) or run_folders.SET_ASIDE in name:
        yield f"name: got '{name}'; allowed: up to 80 letters, digits, - _ and ., as it becomes a folder's name."


def _dataset_problems(dataset: Mapping[str, Any]) -> Iterator[str]:
    style, validation = dataset.get("style"), dataset.get("validation")
    try:
        re.compile(style or "")
    except re.error as error:
        yield f"dataset.style: '{style}' is not a regular expression ({error}); mend it, or set it to null."
    if validation and dataset.get("validation_fraction"):
        yield "dataset.validation_fraction: dataset.validation gives held-out rows already; set one to null or 0."
    elif "embedded:" in str(validation) and "embedded:" not in str(dataset["train"]):
        yield (
            "dataset.validation: is still the embedded data's, while dataset.train is your own; "
            "add dataset=files, which starts empty, or set dataset.validation."
        )


def _secret_problems(tracking: Mapping[str, Any]) -> Iterator[str]:
    if holds_password(tracking.get("uri") or ""):
        yield (
            "tracking.uri: holds a password, which would be written into files; give the whole URI as "
            "MLFLOW_TRACKING_URI, in the environment or in .env."
        )


def holds_password(text: str) -> bool:
    """Say whether a text holds a URI with a password."""
    return re.search(r"://[^/\s:@]*:[^/\s@]+@", text) is not None


def names_secret(key: str) -> bool:
    """Say whether a key is called like a secret."""
    return re.search(r"(?i)api_?key|secret|password|access_?token|account_?key", key) is not None


def _allowed_keys(key: str, prefix: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(key, known, 1)
    meant = f"did you mean {prefix}{close[0]}? " if close else ""
    return f"{meant}allowed: {', '.join(prefix + each for each in known)}"


def describe(annotation: Any) -> str:
    """Say in words what a key's annotation allows: `an integer ≥ 1 or 'auto'`."""
    return _describe(inspect.type_info(annotation))


def _describe(kind: inspect.Type) -> str:
    match kind:
        case inspect.UnionType(types):
            return " or ".join(sorted((_describe(each) for each in types), key=_literals_last))
        case inspect.IntType():
            return "an integer" + _bounds(kind)
        case inspect.FloatType():
            return "a number" + _bounds(kind)
        case inspect.LiteralType(values):
            return " or ".join(repr(value) for value in values)
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType(pattern=pattern):
            return f"text like {pattern.strip('^$')}" if pattern else "text"
        case inspect.NoneType():
            return "null"
        case inspect.ListType(item_type=item):
            return f"a list of {_describe(item)}"
    raise AssertionError(f"config.py uses a type it cannot describe: {kind}")


def _literals_last(words: str) -> int:
    return 1 + words.startswith("'") if words != "null" else 3


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    signs = {">": kind.gt, "≥": kind.ge, "<": kind.lt, "≤": kind.le}
    given = [f"{sign} {bound:g}" for sign, bound in signs.items() if bound is not None]
    return f" {' and '.join(given)}" if given else ""


def all_keys() -> dict[str, str]:
    """Return every key that some request can hold, and the choice it needs (`method=dpo`), empty if none."""
    keys = dict.fromkeys(_keys("", Top), "")
    for section, owner in SECTIONS.items():
        keys |= dict.fromkeys(_keys(f"{section}.", owner), "")
    for name in options(runner.methods):
        keys |= dict.fromkeys(_keys(f"{name}.", runner.methods.load(name).hyperparameters), f"method={name}")
    for name in options(runner.backends):
        needed = _keys("backend.", runner.backends.load(name).settings)
        keys |= {key: f"backend={name}" for key in needed if key not in keys}
    return keys


def _keys(prefix: str, owner: type) -> Iterator[str]:
    for key, hint in get_type_hints(owner, include_extras=True).items():
        nested = is_dataclass(hint) and isinstance(hint, type)
        yield from _keys(f"{prefix}{key}.", hint) if nested else [f"{prefix}{key}"]


def options(package: ModuleType) -> list[str]:
    """Return the names of a package's modules: the methods or backends that exist."""
    return [module.name for module in iter_modules(package.__path__)]


def register() -> None:
    """Give Hydra the defaults to compose over (`base`, and `keys_of_…` for each method and backend) and our folders.

    These are no groups, as `--help` lists every group as something to choose from.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    sections = {name: asdict(section()) for name, section in SECTIONS.items()}
    store.store(name="base", node=asdict(Top()) | sections)
    for name in options(runner.methods):
        keys = {name: asdict(runner.methods.load(name).hyperparameters())}
        store.store(name=f"keys_of_method_{name}", node=keys, package="_global_")
    for name in options(runner.backends):
        keys = {"backend": asdict(runner.backends.load(name).settings())}
        store.store(name=f"keys_of_backend_{name}", node=keys, package="_global_")
    OmegaConf.register_new_resolver("runner.searchpath", _search_path, replace=True)
    OmegaConf.register_new_resolver("runner.commands", lambda: command.others("runner"), replace=True)


def home() -> Path:
    """Return the folder with `conf/` and `experiments/`: the package once installed, else the checkout."""
    package = Path(__file__).parent
    return package if (package / "conf").is_dir() else package.parent


def _search_path() -> list[str]:
    """List further folders with options: a user's own `conf/` and `experiments/` here, then our experiments."""
    here = Path.cwd()
    own = [path for path in (here / "conf", here) if path.is_dir() and path not in (home(), home() / "conf")]
    return [f"file://{path}" for path in (*own, home())]
