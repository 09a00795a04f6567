"""The graders that a request names: `evaluation.graders`, and one for the style of its data set."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from runner import graders, methods
from runner.data.json_value import Json
from runner.errors import RequestError
from runner.graders import Grader
from runner.request import hydra_config
from runner.request.keys import Request

IN_STYLE = "in_style"
"""What the grader of `dataset.style` is called."""


def of_request(request: Request) -> list[Grader]:
    """Return the graders of a request, each with a name of its own.

    Raises `RequestError` for one that is not found, or cannot work.
    """
    style = request.dataset.style
    by_style = [{"type": "pattern", "name": IN_STYLE, "pattern": style}] if style else []
    return named([*by_style, *request.evaluation.graders])


def named(wanted: Sequence[str | Mapping[str, Json]], key: str = "evaluation.graders") -> list[Grader]:
    """Return graders given by their names in `conf/grader/`, as files or as configurations.

    Raises `RequestError` for one that is not found, or cannot work, or whose name another has, too.
    """
    found = [_make(each, f"{key}[{number}]") for number, each in enumerate(wanted)]
    _require_names(found, key)
    return found


def one(wanted: str | Mapping[str, Json], key: str) -> Grader:
    """Return the one grader that a key names; raises as `named` does."""
    grader = _make(wanted, key)
    _require_names([grader], key)
    return grader


def _require_names(found: Sequence[Grader], key: str) -> None:
    # `eval/NAME` would be two things at once. The grader of `dataset.style` bears a metric's name on purpose.
    taken = methods.metrics().keys() - {IN_STYLE}
    for number, grader in enumerate(found):
        if not re.fullmatch(r"\w[\w.-]*", grader.name):
            raise RequestError(
                f"{key}: the name {grader.name!r} cannot be a metric's; allowed: letters, digits, _ . and -."
            )
        if grader.name in [each.name for each in found[:number]] or grader.name in taken:
            raise RequestError(f"{key}: the name {grader.name} is taken; give the grader another `name`.")


def key_of(grader: Grader) -> str:
    """Return what identifies a grader: a hash of its configuration, without its secrets."""
    # Secrets show as `$NAME` or `***` there, so that another key at the same place grades nothing again.
    return sha256(msgspec.json.encode(graders.configuration(grader), order="sorted")).hexdigest()[:16]


def _make(wanted: str | Mapping[str, Json], place: str) -> Grader:
    if isinstance(wanted, str):
        path = _file(wanted, place)
        wanted, place, name = _loaded(path), str(path), path.stem
    else:
        name = str(wanted.get("type"))
        # A request is written into the run's folder and to MLflow; a file in conf/grader/ stays where it is.
        if graders.hidden(dict(wanted)) != wanted:
            raise RequestError(
                f"{place}: {name}: a secret is written down in a request; write $NAME and set that variable in .env, "
                "or put the grader into a file in conf/grader/."
            )
    grader = graders.make(dict(wanted), place)
    return grader if grader.name else msgspec.structs.replace(grader, name=name)


def _file(name: str, place: str) -> Path:
    """Return the file of a grader: a path that ends in .yaml or .json, or a name in `conf/grader/`, one's own first."""
    folders = [Path("conf/grader"), hydra_config.home() / "conf" / "grader"]
    given = name.endswith((".yaml", ".yml", ".json"))
    for path in [Path(name)] if given else [folder / f"{name}.yaml" for folder in folders]:
        if path.is_file():
            return path
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise RequestError(
        f"{place}: {name} not found; allowed: {', '.join(known)}, a file that ends in .yaml or .json, or a grader as "
        "JSON; put it into conf/grader/ here."
    )


def _loaded(path: Path) -> Mapping[str, Json]:
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)  # its errors name the file: hydra_errors.py
    if not isinstance(content, Mapping):
        raise RequestError(f"{path}: holds no keys; it needs those of a grader: type, name and its fields.")
    return {str(key): value for key, value in content.items()}
