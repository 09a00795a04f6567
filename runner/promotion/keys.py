"""Keys of `python -m runner.promote`, given as KEY=VALUE."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, get_type_hints

import msgspec
from msgspec import Meta

from runner.errors import RequestError
from runner.request.check import describe
from runner.request.types import PositiveFloat, PositiveInt

# MLflow's own rule (mlflow.utils.validation).
Alias = Annotated[str, Meta(pattern=r"^[\w-]{1,100}$")]
ModelName = Annotated[str, Meta(pattern=r"^[^/:]+$")]
DeploymentName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{1,63}$")]


class Keys(msgspec.Struct, frozen=True, kw_only=True, rename={"alias": "as"}):
    """What is asked for besides the run."""

    alias: Alias = "champion"
    """The alias that the model gets, and whose holder it is compared with."""
    name: ModelName | None = None
    """The registered model; null takes `tracking.register` of the run, else what its data is called."""
    metric: str | None = None
    """What decides: a grader, or a metric such as eval/loss; null takes the first grader that both have."""
    no_worse_than: PositiveFloat | None = None
    """Also promote a model that is cheaper, and behind by less than this for sure, in the metric's own unit."""
    deployment: DeploymentName | None = None
    """Hosted: the deployment that callers use, which from now on answers with the model that has the alias."""
    back: bool = False
    """Give the alias back to the version that had it before."""
    to: PositiveInt | None = None
    """The version to go back to; null takes the one before."""
    history: bool = False
    """Only show who had the alias when, and why."""
    undeploy: bool = False
    """Remove the deployment that callers use; the models stay."""


def parse(settings: Sequence[str]) -> Keys:
    """Return keys from KEY=VALUE. Raises `RequestError` with one line for each that is wrong."""
    given = dict(each.partition("=")[::2] for each in settings)
    hints = get_type_hints(Keys, include_extras=True)
    known = {each.encode_name: hints[each.name] for each in msgspec.structs.fields(Keys)}
    problems = [problem for key, value in given.items() for problem in _problems(key, value, known)]
    if problems:
        raise RequestError("\n".join(problems))
    # Not strict: all that is typed is text, and 0.02 or true are values of it.
    keys = msgspec.convert({key: value for key, value in given.items() if value != "null"}, Keys, strict=False)
    # MLflow keeps these for versions, and says so only when the alias is set, after all the work.
    if re.fullmatch(r"[vV]\d+|latest", keys.alias):
        raise RequestError(f"as: got {keys.alias}, which means a version in MLflow; take a name such as champion.")
    ways = [name for name in ("back", "history", "undeploy") if getattr(keys, name)]
    if len(ways) > 1 or (keys.to is not None and not keys.back):
        wrong = f"{', '.join(ways)}: one at a time" if len(ways) > 1 else "to: goes with back=true"
        raise RequestError(f"promote: {wrong}; leave the others out.")
    return keys


def _problems(key: str, value: str, known: Mapping[str, object]) -> list[str]:
    if key not in known:
        close = get_close_matches(key, known, 1)
        meant = f"did you mean {close[0]}? " if close else ""
        return [f"{key}: no such key; {meant}allowed: {', '.join(known)}."]
    try:
        if value != "null":
            msgspec.convert(value, known[key], strict=False)
    except msgspec.ValidationError:
        return [f"{key}: got {value!r}; allowed: {describe(known[key])}."]
    return []
