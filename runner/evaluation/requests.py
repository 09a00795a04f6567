"""What `python -m runner.evaluate` is asked for: models, and the request whose rows and graders are taken."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from runner import api, planning
from runner.backends import Respondent
from runner.errors import ModelError
from runner.evaluation import models
from runner.record import run_folders
from runner.request import check
from runner.request.keys import Request, RootKeys

TRACKING = "tracking"
"""The one group that can be chosen without forgetting a run's rows and graders."""


def divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return models and overrides apart: an override has a key before its first equals sign, a URL has not."""
    overrides = [each for each in arguments if _is_override(each)]
    return [each for each in arguments if each not in overrides], overrides


def _is_override(argument: str) -> bool:
    key, equals, _ = argument.partition("=")
    return bool(equals) and key.lstrip("+~").replace(".", "").replace("_", "").replace("/", "").isalnum()


def of(names: Sequence[str], overrides: Sequence[str], runs: Path) -> tuple[Request, list[str]]:
    """Return the request, and the models with the base model of a run that is named alone.

    It is that of the first run that is named, changed by overrides; where there is none, or a group is chosen that
    says what is asked (`dataset=files`, and not `tracking=none`), it is composed as `python -m runner` composes it.
    """
    folder = next((found for name in names if (found := _run(name, runs))), None)
    at_root = {each.name for each in fields(RootKeys)}
    groups = [key for key in (each.partition("=")[0] for each in overrides) if "." not in key and key not in at_root]
    if folder is None or set(groups) - {TRACKING}:
        return _own_prompts(check.request(api.composed(*overrides)), overrides), list(names)
    run = planning.load(folder)
    composed = check.as_composed(run.request)
    # As a whole: the run's rows and graders stay, where its numbers go is chosen again.
    if chosen := [each for each in overrides if each.partition("=")[0] == TRACKING]:
        composed[TRACKING] = api.composed(*chosen)[TRACKING]
    request = check.request(_changed(composed, [each for each in overrides if each not in chosen]))
    # One run by itself is compared with the model that it was made from.
    alone = len(names) == 1 and "@" not in names[0]
    return request, [f"{names[0]}@base", names[0]] if alone else list(names)


def _own_prompts(request: Request, overrides: Sequence[str]) -> Request:
    """Return the request without the style of the embedded data where neither its rows nor it are asked for."""
    about_data = any(each.partition("=")[0].partition(".")[0] == "dataset" for each in overrides)
    if about_data or not request.evaluation.prompts:
        return request
    return replace(request, dataset=replace(request.dataset, style=None))


def respondents(names: Sequence[str], request: Request, runs: Path) -> Mapping[str, Respondent]:
    """Return the models by their names. Raises `ModelError` for one that is not found."""
    return {name: models.find(name, request, runs) for name in names}


def _run(name: str, runs: Path) -> Path | None:
    try:
        return run_folders.find(name.partition("@")[0], runs)
    except ModelError:
        return None


def _changed(composed: dict[str, object], overrides: Sequence[str]) -> object:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(composed), OmegaConf.from_dotlist(list(overrides))))
