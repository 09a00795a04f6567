"""What a run at a remote engine leaves behind, next to its adapter where that is here: `model/remote.json`."""

from pathlib import Path

import msgspec

from runner.record import layout
from runner.record.files import read_json, write_json


class RemoteModel(msgspec.Struct, frozen=True):
    """Where the result of a run is at its service: a state to train further, and a sampler's weights that answer."""

    service: str
    endpoint: str
    base_model: str
    state: str
    sampler: str
    source: str = ""
    """The base model as `model.source` names it, whose tokenizer it is."""
    steps: int = 0
    """The optimizer steps behind the weights, those of earlier runs that it went on from included."""


def read(folder: Path) -> RemoteModel | None:
    """Return what a run's folder says of its model at a service, None where it says nothing."""
    # Next to reference.json, by which the same folder is loaded as a local model.
    path = folder / layout.MODEL / layout.REMOTE
    return read_json(path, RemoteModel)


def write(model_folder: Path, model: RemoteModel) -> None:
    """Leave in a model's folder where it is at the service."""
    write_json(model_folder / layout.REMOTE, model)
