"""A hosted model: what a run at a hosted service leaves behind, names and no weights."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from runner.record import layout
from runner.record.files import read_json, write_json


class HostedModel(msgspec.Struct, frozen=True):
    """What a hosted run leaves behind in `model/hosted.json`: names at the service, no weights."""

    plan_id: str
    base: str
    model: str
    job: str
    endpoint: str


def read(folder: Path) -> HostedModel | None:
    """Return what a run's folder says of its hosted model, None where it has none."""
    # No weights are here, so this file distinguishes it from a local model.
    path = folder / layout.MODEL / layout.HOSTED
    return read_json(path, HostedModel)


def write(folder: Path, model: HostedModel) -> None:
    """Leave in a run's folder what its hosted model is."""
    (folder / layout.MODEL).mkdir(exist_ok=True)
    write_json(folder / layout.MODEL / layout.HOSTED, model)


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint as the step `save` lists it: a model reference, and after which step it was made."""

    model: str
    step: int


class _Saved(msgspec.Struct):
    checkpoints: list[Checkpoint] = []


def checkpoints(results: Mapping[str, Mapping[str, object]]) -> dict[int, str]:
    """Return the names of a run's checkpoints at the service, by their steps; none before its job has ended."""
    saved = msgspec.convert(results.get("save", {}), _Saved)
    return {each.step: each.model.partition(":")[2] for each in saved.checkpoints}
