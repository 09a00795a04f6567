"""A model reference: what a run leaves behind, in a folder that can be moved and loaded elsewhere.

`reference.json` names the base model by its source and digest; next to it are the adapters to put on it, in
order (a run that started from another run's result keeps that one's adapters first), or the full weights.
"""

from hashlib import file_digest, sha256
from pathlib import Path

import msgspec

from runner.errors import ModelError
from runner.models.source import ModelIdentity
from runner.record import layout
from runner.record.files import read_json, write_json


class ModelReference(msgspec.Struct, frozen=True):
    """What `reference.json` says. `adapters` are folder names; `full` means that the folder holds all weights."""

    plan_id: str
    base: ModelIdentity
    adapters: list[str]
    full: bool
    digest: str


def read(folder: Path) -> ModelReference | None:
    """Return a folder's reference, or None where it is a plain model folder."""
    path = folder / layout.REFERENCE
    # A folder without one is a model as transformers saves it, a base model.
    return read_json(path, ModelReference)


def write(folder: Path, plan_id: str, base: ModelIdentity, adapters: list[str], full: bool) -> ModelReference:
    """Describe the weights that lie in a folder and return the reference."""
    digest = sha256()
    # Weights alone: a digest that named the folder or the date would differ between equal runs.
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(file_digest(file, "sha256").digest())
    reference = ModelReference(plan_id, base, adapters, full, digest.hexdigest())
    write_json(folder / layout.REFERENCE, reference)
    return reference


def demand(folder: Path, source: str) -> ModelReference:
    """Return the reference of a folder that has to hold one; raises `ModelError` otherwise."""
    reference = read(folder)
    if reference is None:
        raise ModelError(f"model.source: {source} has no model yet; let that run finish first.")
    return reference
