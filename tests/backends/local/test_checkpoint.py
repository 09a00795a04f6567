"""A checkpoint is whole or not there, and brings back every number."""

from pathlib import Path

import pytest
import torch

from runner.backends.local import checkpoint
from runner.backends.local.checkpoint import Best


def learner() -> tuple[dict[str, torch.Tensor], torch.optim.Optimizer]:
    weights = {"matrix": torch.ones(3, 2, requires_grad=True), "vector": torch.zeros(2, requires_grad=True)}
    return weights, torch.optim.AdamW(weights.values(), lr=0.1)


def take_step(weights: dict[str, torch.Tensor], adam: torch.optim.Optimizer) -> None:
    noise = torch.randn(3, 2)
    ((weights["matrix"] * noise).sum() + weights["vector"].exp().sum()).backward()
    adam.step()
    adam.zero_grad()


def test_a_run_from_a_checkpoint_ends_in_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights, adam = learner()
    take_step(weights, adam)
    checkpoint.save(tmp_path, 1, weights, adam, Best(1, 0.5))
    take_step(weights, adam)
    again, other_adam = learner()
    assert checkpoint.load(tmp_path, again, other_adam) == (1, Best(1, 0.5))
    take_step(again, other_adam)
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    weights, adam = learner()
    for at in (3, 6, 9):
        checkpoint.save(tmp_path, at, weights, adam, None, keep=2)
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-00000006", "step-00000009"]


def test_a_half_written_one_is_not_seen_and_is_written_over(tmp_path: Path) -> None:
    weights, adam = learner()
    (tmp_path / ".step-00000003").mkdir(parents=True)
    (tmp_path / ".step-00000003" / "weights.safetensors").write_bytes(b"torn")
    assert checkpoint.load(tmp_path, weights, adam) == (0, None)
    checkpoint.save(tmp_path, 3, weights, adam, None)
    assert checkpoint.load(tmp_path, weights, adam) == (3, None)


def test_no_pickle_is_written(tmp_path: Path) -> None:
    weights, adam = learner()
    checkpoint.save(tmp_path, 1, weights, adam, None)
    assert {path.suffix for path in checkpoint.steps(tmp_path)[0].iterdir()} == {".safetensors", ".json"}


def test_a_write_that_fails_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, adam = learner()
    checkpoint.save(tmp_path, 1, weights, adam, None)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 2, weights, adam, None)
    monkeypatch.undo()
    assert checkpoint.load(tmp_path, weights, adam)[0] == 1
