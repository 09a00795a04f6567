"""Checkpoints: all that training needs to resume with the same bits, written so that no crash harms them.

    step-00000012/     weights, optimizer and any further group as .safetensors, state.json; never pickle
    best.safetensors   the best weights so far, on disk before any checkpoint that speaks of them

Each is written under a hidden name, synced and renamed: what has its name is whole. Order of rows, learning rate and
random numbers follow from step and plan. This file knows neither model nor method, nor what further groups mean.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from types import TracebackType
from typing import Self

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from runner.backends.local.parallel import sharding
from runner.backends.local.parallel.sharding import Tensors
from runner.cache import sync
from runner.errors import RunnerError

PATIENCE_SECONDS = 60.0  # after an error: a write underway gets so long, then a disk that hangs no longer holds us


@dataclass(frozen=True)
class State:
    """The state of training after `step` optimizer steps; tensors of any shape, type and device, by name.

    `optimizer` is flat, `weight's name/key`. `extra` holds further groups, an averaged copy of the weights
    say, each a file of its name. `progress` is small JSON: names, numbers (finite ones), lists.
    """

    step: int
    weights: Tensors
    optimizer: Tensors
    extra: Mapping[str, Tensors] = field(default_factory=dict)
    progress: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert not self.extra.keys() & {"weights", "optimizer"}, "these groups have a place of their own"


class Writer:
    """Writes checkpoints on a thread of its own, one at a time, and keeps the last `keep` of them.

    A context manager, one at a time a folder, which holds nothing else; leaving waits until all is on disk, after an
    error in its block a minute at most. A write that fails is raised by the next call, or on leaving, and is the last.
    """

    def __init__(self, folder: Path, keep: int = 1) -> None:
        assert keep >= 1
        self.folder, self.keep = folder, keep
        # One queue for all, waiting included: Ctrl-C cannot cut its `put` in two, so the thread has a job or has not.
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # daemon: a disk that hangs does not keep the process from ending.
        self._thread = Thread(target=self._work, name="checkpoints", daemon=True)
        self._failure: BaseException | None = None
        self._raised = False
        # Not `Thread.is_alive`: interrupted by Ctrl-C, it says no for ever after (https://bugs.python.org/issue45274).
        self._open = False

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for draft in self.folder.glob(".*"):  # of a killed process; safetensors has hidden drafts, too
            _remove(draft)
        self._thread.start()
        self._open = True
        return self

    def save(self, state: State) -> None:
        """Copy the state and hand it to the thread; on return its tensors may change.

        Waits for the write before it, as there is one copy in memory at most, and raises what that met. A step that has
        a checkpoint gets no other: the same steps lead to the same state.
        """
        self.flush()
        target = self.folder / f"step-{state.step:08d}"
        if target.exists():
            return
        groups = {"weights": state.weights, "optimizer": state.optimizer, **state.extra}
        copies = {name: _copy(tensors) for name, tensors in groups.items()}
        text = msgspec.json.encode(_Stored(state.step, dict(state.progress)))
        num_bytes = len(text) + sum(_num_bytes(tensors) for tensors in copies.values())
        self._hand(target, num_bytes, partial(_write_step, target, copies, text, self.keep))

    def best(self, weights: Tensors) -> None:
        """Copy the weights and hand them to the thread for `best.safetensors`; waits and raises as `save` does."""
        self.flush()
        target, copies = self.folder / "best.safetensors", _copy(weights)
        self._hand(target, _num_bytes(copies), partial(save_weights, target, copies))

    def flush(self) -> None:
        """Wait until all is on disk; raises `RunnerError` where a write has failed."""
        self._wait(None)
        if self._failure is not None:
            self._raised = True
            raise self._failure

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self._wait(None if error is None else PATIENCE_SECONDS)
        finally:
            self._open = False
            self._jobs.put(None)
        if self._failure is not None and not self._raised:
            if error is None:
                raise self._failure
            error.add_note(str(self._failure))  # what ended the block comes first

    def _hand(self, target: Path, num_bytes: int, write: Callable[[], None]) -> None:
        """Give the thread a write that needs `num_bytes` bytes on disk."""

        def job() -> None:
            try:
                write()
            except BaseException as error:
                # Kept for the next call of ours: raised here it would be lost with the thread.
                self._failure = _explained(error, target, num_bytes)

        self._jobs.put(job)

    def _wait(self, seconds: float | None) -> None:
        """Wait until the thread has done all it was handed, for so many seconds at most."""
        assert self._open, "a writer writes within its `with` block"
        done = Event()
        self._jobs.put(done.set)
        done.wait(seconds)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            job()
            del job  # or the copy, as large as the state, stays in memory until the next one comes


def load(folder: Path) -> State | None:
    """Return the state of the latest checkpoint, on the CPU, or None where there is none.

    Raises `RunnerError` where its files are damaged or another version's.
    """
    found = steps(folder)
    return _read(found[-1]) if found else None


def optimizer_tensors(weights: Tensors, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's own tensors as `weight's name/key`; they are not copies."""
    return {
        f"{name}/{key}": value for name, tensor in weights.items() for key, value in optimizer.state[tensor].items()
    }


def restore_optimizer(weights: Tensors, optimizer: Optimizer, tensors: Tensors) -> None:
    """Give the optimizer what `optimizer_tensors` returned; where no copy is needed, the tensors become its own."""
    # A fused or captured step counts on the weights' device, any other on the CPU.
    groups = [group for group in optimizer.param_groups if group.get("fused") or group.get("capturable")]
    others = {parameter for group in groups for parameter in group["params"]}
    found: dict[str, dict[str, Tensor]] = {name: {} for name in weights}
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        stays = key == "step" and weights[name] not in others
        found[name][key] = value if stays else value.to(weights[name].device)
    for name, tensor in weights.items():
        optimizer.state[tensor] = found[name]


def steps(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*"))


def save_weights(path: Path, weights: Tensors) -> None:
    """Write named weights as safetensors, whole or not at all."""
    draft = path.with_name(f".{path.name}")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, draft)
        publish(draft, path)
    except BaseException:
        _remove(draft)  # gives its space back
        raise


def load_weights(path: Path, weights: Tensors) -> None:
    """Copy stored weights into the model's own tensors."""
    stored = load_file(path)
    with torch.no_grad():
        for name, tensor in weights.items():
            sharding.fill(tensor, stored[name])


def publish(draft: Path, target: Path) -> None:
    """Sync a written file or folder and give it its name; readers see it whole or not at all."""
    # First the content, then the names: a power cut leaves a draft or the whole
    # (https://lwn.net/Articles/457667/).
    for path in [draft] if draft.is_file() else [*draft.iterdir(), draft]:
        sync(path)
    draft.replace(target)
    sync(target.parent)


class _Stored(msgspec.Struct, frozen=True):
    """What `state.json` holds."""

    step: int
    progress: dict[str, object]


def _read(path: Path) -> State:
    try:
        stored = msgspec.json.decode((path / "state.json").read_bytes(), type=_Stored)
        # Copied, since what safetensors maps would hold the space of a checkpoint long removed.
        groups = {file.stem: _copy(load_file(file)) for file in sorted(path.glob("*.safetensors"))}
        return State(stored.step, groups.pop("weights"), groups.pop("optimizer"), groups, stored.progress)
    except (msgspec.MsgspecError, SafetensorError, KeyError, FileNotFoundError) as error:
        before = [each.name for each in steps(path.parent) if each < path]
        raise RunnerError(
            f"{path}: the checkpoint is damaged or another version's ({error}); remove this folder, "
            f"and the same command resumes from {before[-1] if before else 'the start'}."
        ) from error


def _write_step(target: Path, groups: Mapping[str, dict[str, Tensor]], text: bytes, keep: int) -> None:
    """Write a checkpoint, and remove older ones but the last `keep` once it is whole."""
    draft = _hidden(target)
    try:
        draft.mkdir()
        for name, tensors in groups.items():
            save_file(tensors, draft / f"{name}.safetensors")
        (draft / "state.json").write_bytes(text)
        publish(draft, target)
    except BaseException:
        _remove(draft)  # gives its space back
        raise
    for old in steps(target.parent)[:-keep]:
        old.replace(_hidden(old))  # a kill midway leaves a draft, never a checkpoint without some of its files
        sync(target.parent)
        _remove(_hidden(old))


def _explained(error: BaseException, target: Path, num_bytes: int) -> BaseException:
    """Return the error for a failed write; an error that is not the system's is ours and stays as it is."""
    number = _system_error(error)
    if number is None:
        return error
    free = shutil.disk_usage(next(path for path in target.parents if path.exists())).free
    whole = steps(target.parent)
    state, start = (f"{whole[-1].name} is whole", "it") if whole else ("there is none yet", "the start")
    fix = "free space" if number in (errno.ENOSPC, errno.EDQUOT) else "fix that"
    explained = RunnerError(
        f"{target}: {os.strerror(number)}; {num_bytes / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB free; "
        f"the last good checkpoint: {state}; {fix}, and the same command resumes from {start}."
    )
    explained.__cause__ = error
    return explained


def _system_error(error: BaseException) -> int | None:
    """Return the system's number of an error; safetensors has it in its words only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error)) if isinstance(error, SafetensorError) else None
    return int(found[1]) if found else None


def _copy(tensors: Tensors) -> dict[str, Tensor]:
    """Return tensors of their own memory, on the CPU and without gaps, complete on return."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _num_bytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def _remove(path: Path) -> None:
    """Remove a file or folder, or what of it can be."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
