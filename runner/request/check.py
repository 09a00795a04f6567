"""The check of a request: a composed configuration becomes frozen values, or one sentence for each wrong key."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import inspect

from runner import backends, methods
from runner.data import mixture
from runner.errors import RequestError
from runner.graders.secret import Secret
from runner.record import run_folders
from runner.request.keys import SECTIONS, Request, RootKeys

Keys = TypeVar("Keys")


def request(composed: Any) -> Request:
    """Check a composed configuration and return it as frozen values.

    Raises `RequestError` with one line for each key that is unknown, missing, of the wrong type or out of range, or
    does not go with the others.
    """
    composed = _with_train(composed)
    gone = [section for section in ("method", "backend", *SECTIONS) if section not in composed]
    if gone:
        raise RequestError(f"{gone[0]}: missing; every request needs one; leave out ~{gone[0]}.")
    method = _chosen("method", composed["method"], methods.names())
    backend = _chosen("backend", (composed["backend"] or {}).get("name"), backends.names())
    # Each section by its owner's dataclass: a method's or a backend's keys are in its own package.
    owners = SECTIONS | {method: methods.load(method).hyperparameters}
    owners["backend"] = backends.keys(backend)
    root = {key: value for key, value in composed.items() if key not in owners and key != "method"}
    problems = [*_problems("", root, RootKeys)]
    for section, owner in owners.items():
        problems += _problems(f"{section}.", composed.get(section) or {}, owner)
    # What values mean together is looked at only where each is right by itself.
    problems = problems or [
        *_name_problems(root),
        *_dataset_problems(composed["dataset"]),
        *_mix_problems(composed["dataset"]),
        *_secret_problems(composed["tracking"]),
    ]
    if problems:
        raise RequestError("\n".join(problems))
    values: dict[str, Any] = {
        section: msgspec.convert(composed.get(section) or {}, owner) for section, owner in owners.items()
    }
    hyperparameters = values.pop(method)
    problems = [*methods.load(method).problems(hyperparameters)]
    if problems:
        raise RequestError("\n".join(problems))
    return Request(**asdict(msgspec.convert(root, RootKeys)), method=method, hyperparameters=hyperparameters, **values)


def _chosen(group: str, name: object, known: list[str]) -> str:
    """Return the name of a method or a backend, by whose keys the rest is checked; raises as `request` does."""
    if name not in known:
        raise RequestError(f"{group}: got {name!r}; choose {group}=NAME; allowed: {', '.join(known)}.")
    return str(name)


def values(given: Mapping[str, object], owner: type[Keys]) -> Keys:
    """Return the keys of a command as the frozen dataclass that declares them; raises as `request` does."""
    problems = [*_problems("", given, owner)]
    if problems:
        raise RequestError("\n".join(problems))
    return msgspec.convert(given, owner)


def as_composed(request: Request) -> dict[str, object]:
    """Return a request in the form that `request` takes."""
    sections: dict[str, object] = {name: asdict(getattr(request, name)) for name in SECTIONS}
    owned = {"method": request.method, request.method: asdict(request.hyperparameters)}
    root = {each.name: getattr(request, each.name) for each in fields(RootKeys)}
    return root | sections | owned | {"backend": asdict(request.backend)}


def with_defaults(request: Request) -> Request:
    """Return a request of the same method and backend in which every key has its default."""
    backend = request.backend.name
    return Request(
        **{name: owner() for name, owner in SECTIONS.items()},
        method=request.method,
        hyperparameters=methods.load(request.method).hyperparameters(),
        backend=backends.keys(backend)(name=backend),
    )


def _problems(prefix: str, values: object, owner: type) -> Iterator[str]:
    """Yield a sentence for each wrong key of one section, nested sections included."""
    known = {each.name: each for each in fields(owner)}
    if not isinstance(values, Mapping):
        yield f"{prefix[:-1]}: got {values!r}; it has keys of its own: {', '.join(prefix + key for key in known)}."
        return
    for key in values:
        if key not in known:
            yield f"{prefix}{key}: no such key; {_allowed_keys(key, prefix, known)}."
    # With extras: `Annotated` holds the ranges, which msgspec checks.
    hints = get_type_hints(owner, include_extras=True)
    for key in known:
        value = values.get(key, "???" if known[key].default is MISSING else known[key].default)
        if is_dataclass(hints[key]) and isinstance(hints[key], type):
            # One that is there without a value is no section: whoever writes backend.lora=null means something by it.
            yield from _problems(f"{prefix}{key}.", values.get(key, {}), hints[key])
        elif value == "???":
            yield f"{prefix}{key}: missing; give it {describe(hints[key])}, in YAML or as {prefix}{key}=…"
        else:
            try:
                msgspec.convert(value, hints[key])
            except msgspec.ValidationError:
                yield f"{prefix}{key}: got {value!r}; allowed: {describe(hints[key])}."


def _with_train(composed: Any) -> Any:
    """Return a configuration in which `dataset.train` names the files of `dataset.mix`, where that is given."""
    dataset = composed.get("dataset")
    # A value in place of the section is refused with the other problems.
    if not isinstance(dataset, Mapping) or not dataset.get("mix") or dataset.get("train", "???") != "???":
        return composed
    train: list[str] = []
    # What is wrong with the mixture is said with the other problems; that `train` is missing would not help.
    with suppress(ValueError):
        train = mixture.train_of(mixture.read(dataset["mix"]))
    return {**composed, "dataset": {**dataset, "train": train}}


def _mix_problems(dataset: Mapping[str, object]) -> Iterator[str]:
    mix = dataset.get("mix")
    if not mix:
        return
    try:
        files = mixture.train_of(mixture.read(msgspec.convert(mix, dict[str, Any])))
    except ValueError as error:
        yield str(error)
        return
    # A request that a run has kept has both, and they agree.
    if dataset["train"] != files:
        yield f"dataset.train: got {dataset['train']!r}, but dataset.mix names the files already; leave it out."


def _name_problems(root: Mapping[str, object]) -> Iterator[str]:
    name = str(root.get("name", "auto"))
    # No leading dot, which hides the folder; no leading dash, which commands would take for an option.
    if not re.fullmatch(r"\w[\w.-]{0,79}", name) or run_folders.SET_ASIDE in name:
        yield f"name: got '{name}'; allowed: up to 80 letters, digits, - _ and ., as it becomes a folder's name."


def _dataset_problems(dataset: Mapping[str, object]) -> Iterator[str]:
    style, validation = dataset.get("style"), dataset.get("validation")
    try:
        re.compile(str(style or ""))
    except re.error as error:
        yield f"dataset.style: '{style}' is not a regular expression ({error}); fix it, or set it to null."
    if validation and dataset.get("validation_fraction"):
        yield "dataset.validation_fraction: dataset.validation gives held-out rows already; set one to null or 0."
    elif "embedded:" in str(validation) and "embedded:" not in str(dataset["train"]):
        yield (
            "dataset.validation: is still the embedded data's, while dataset.train is your own; "
            "add dataset=files, which starts empty, or set dataset.validation."
        )


def _secret_problems(tracking: Mapping[str, object]) -> Iterator[str]:
    if holds_password(str(tracking.get("uri") or "")):
        yield (
            "tracking.uri: holds a password, which would be written into files; give the whole URI as "
            "MLFLOW_TRACKING_URI, in the environment or in .env."
        )


def require_no_secret(argument: str) -> None:
    """Raise `RequestError` where an override, `KEY=VALUE`, holds a secret: it would be written into files."""
    key = argument.partition("=")[0].strip("'+")
    if holds_password(argument) or names_secret(key):
        raise RequestError(f"{key}: a secret is never typed or kept in YAML; put it into .env.")
    if holds_header(argument):
        raise RequestError(f"{key}: the value of a header is never typed; write $NAME, and put NAME into .env.")


def holds_password(text: str) -> bool:
    """Say whether a text holds a URI with a password."""
    # USER:PASSWORD@ of a URI, with an empty user, too; a port has no @ behind it.
    return re.search(r"://[^/\s:@]*:[^/\s@]+@", text) is not None


def holds_header(text: str) -> bool:
    """Say whether a text holds headers, as an endpoint grader has them, of which one is not given as `$NAME`."""
    found = re.findall(r"headers[\"']?\s*[:=]\s*\{([^}]*)\}?", text)
    values = [pair.partition(":")[2].strip(" \"'\\") for headers in found for pair in headers.split(",")]
    return any(value and Secret(value).variable is None for value in values)


def names_secret(key: str) -> bool:
    """Say whether a key is called like a secret."""
    return re.search(r"(?i)api_?key|secret|password|access_?token|account_?key", key) is not None


def _allowed_keys(key: str, prefix: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(key, known, 1)
    meant = f"did you mean {prefix}{close[0]}? " if close else ""
    return f"{meant}allowed: {', '.join(prefix + each for each in known)}"


def describe(annotation: object) -> str:
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
        case inspect.DictType():
            return "keys with values"
    raise AssertionError(f"a key has a type that check.py cannot describe: {kind}")


def _literals_last(words: str) -> int:
    return 1 + words.startswith("'") if words != "null" else 3


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    signs = {">": kind.gt, "≥": kind.ge, "<": kind.lt, "≤": kind.le}
    given = [f"{sign} {bound:g}" for sign, bound in signs.items() if bound is not None]
    return f" {' and '.join(given)}" if given else ""
