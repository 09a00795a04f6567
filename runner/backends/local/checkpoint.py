"""Checkpoints: all that training needs to go on in the same bits, written so that a crash cannot harm them.

A checkpoint is a folder `step-00000012` with safetensors and JSON (never pickle). It is written under
another name, synced and renamed: one that has its name is whole. Order of rows and learning rate follow
from the step's number and the plan, so they are not in it.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer


@dataclass(frozen=True)
class Best:
    """The lowest held-out loss so far and the optimizer step it was measured after."""

    at: int
    loss: float


def save(
    folder: Path, at: int, weights: dict[str, Tensor], optimizer: Optimizer, best: Best | None, keep: int = 1
) -> None:
    """Write the state after `at` optimizer steps and remove older ones but the last `keep`."""
    target = folder / f"step-{at:08d}"
    if target.exists():
        return  # it was reached before, and the same steps lead to the same state
    draft = folder / f".{target.name}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_weights(draft / "weights.safetensors", weights)
    save_file(_optimizer_tensors(weights, optimizer), draft / "optimizer.safetensors")
    rng = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        rng["cuda"] = torch.cuda.get_rng_state()
    save_file(rng, draft / "rng.safetensors")
    (draft / "state.json").write_bytes(msgspec.json.encode({"at": at, "best": best}))
    publish(draft, target)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(old)


def load(folder: Path, weights: dict[str, Tensor], optimizer: Optimizer) -> tuple[int, Best | None]:
    """Put the latest checkpoint into weights, optimizer and RNG; return its step and best, or (0, None)."""
    found = steps(folder)
    if not found:
        return 0, None
    load_weights(found[-1] / "weights.safetensors", weights)
    stored = load_file(found[-1] / "optimizer.safetensors")
    for name, tensor in weights.items():
        keys = [key.removeprefix(f"{name}/") for key in stored if key.startswith(f"{name}/")]
        optimizer.state[tensor] = {key: stored[f"{name}/{key}"].to(_device(key, tensor)) for key in keys}
    rng = load_file(found[-1] / "rng.safetensors")
    torch.set_rng_state(rng["torch"])
    if "cuda" in rng and torch.cuda.is_available():
        torch.cuda.set_rng_state(rng["cuda"])
    state = msgspec.json.decode((found[-1] / "state.json").read_bytes())
    return state["at"], msgspec.convert(state["best"], Best | None)


def steps(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*"))


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write named weights as safetensors, whole or not at all."""
    draft = path.with_name(f".{path.name}")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, draft)
    publish(draft, path)


def load_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Copy stored weights into the model's own tensors."""
    stored = load_file(path)
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(stored[name])


def publish(draft: Path, target: Path) -> None:
    """Sync a written file or folder and give it its name; readers see it whole or not at all."""
    for path in [draft] if draft.is_file() else [*draft.iterdir(), draft]:
        _sync(path)
    draft.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _device(key: str, tensor: Tensor) -> torch.device:
    """Adam counts its steps on the CPU; its moments lie beside the weights."""
    return torch.device("cpu") if key == "step" else tensor.device


def _optimizer_tensors(weights: dict[str, Tensor], optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, tensor in weights.items()
        for key, value in optimizer.state[tensor].items()
    }
