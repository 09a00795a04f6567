"""Processes that execute one run together, as `torchrun` starts them; usually there is only one.

    torchrun --nproc_per_node=2 -m runner …

All ranks make the same plan and execute the same steps, event by event. Only rank 0 writes: the journal, checkpoints,
the model, MLflow, the terminal. After each event the ranks agree on whether to stop, so that a signal to any of them
stops all at the same step. When a rank dies, the others notice at once by its connection and stop.

torch is imported only if there are several processes. What they compute together is up to the backend.
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from runner.errors import LostError, RequestError, RunnerError, StopAsked

if TYPE_CHECKING:
    from torch import Tensor
    from torch._C._distributed_c10d import Store

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""A rank that does not answer an all-reduce for this long is taken for lost."""
PATIENCE = timedelta(days=1)
"""The same between two events, where the others may wait for rank 0, which writes, downloads or generates alone."""
BUCKET = 1 << 26
"""Numbers per all-reduce: all of an adapter's gradients, and a quarter of a GB where every weight learns."""
EXIT_WAIT_SECONDS = 30.0
"""Seconds to wait for rank 0's error message before exiting; torchrun waits as long."""


@dataclass(frozen=True)
class Rank:
    """The rank of this process and how many processes there are, in all and on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is rank 0, the one that writes and prints."""
        return self.rank == 0


def this_rank(environment: Mapping[str, str] = os.environ) -> Rank:
    """Return the rank of this process, which torchrun leaves in the environment; without torchrun it is 0 of 1."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    # All or nothing: schedulers set some of these by themselves (MPI, Slurm wrappers), without a meeting
    # point.
    if not all(environment.get(name) for name in (*names, "MASTER_ADDR", "MASTER_PORT")):
        return Rank()
    return Rank(*(int(environment[name]) for name in names))


# `broadcast` is untyped: the other ranks give None, or anything, and get what rank 0 has.
class Group:
    """The processes that execute a run together. This one is for a single process, which gets back what it gives."""

    rank = Rank()

    def any_of(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank. Waits for all ranks, however long rank 0 works alone."""
        return flag

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0; it may be anything that can be pickled."""
        return value

    def all_gather(self, value: T) -> list[T]:
        """Return the value of each rank, in order of rank."""
        return [value]

    def all_reduce(self, tensors: Sequence["Tensor"]) -> None:
        """Replace each tensor by its sum over the ranks, which have tensors of the same shapes."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block an error caused by a lost rank is raised as `LostError`."""
        yield


class TorchGroup(Group):
    """Ranks connected by torch.distributed: gloo for objects and CPU tensors, NCCL for GPU tensors."""

    def __init__(self, rank: Rank) -> None:
        import torch
        from torch import distributed

        self.rank, self._distributed = rank, distributed
        # Objects go by gloo also on GPUs: NCCL would copy them to the device and back.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
        distributed.init_process_group(
            backend, store=_store(), rank=rank.rank, world_size=rank.world_size, timeout=TIMEOUT
        )
        # A group of its own, for its own time-out: a rank may wait for a download, but not for a gradient.
        self._objects = distributed.new_group(backend="gloo", timeout=PATIENCE)

    def any_of(self, flag: bool) -> bool:
        import torch

        with self.watched():
            # A sum above zero: somebody has set it.
            votes = torch.tensor([int(flag)])
            self._distributed.all_reduce(votes, group=self._objects)
            return bool(votes.item())

    def broadcast(self, value: Any) -> Any:
        with self.watched():
            box = [value if self.rank.first else None]
            self._distributed.broadcast_object_list(box, src=0, group=self._objects)
            return box[0]

    def all_gather(self, value: T) -> list[T]:
        with self.watched():
            # Places for what comes; each is overwritten.
            found = [value] * self.rank.world_size
            self._distributed.all_gather_object(found, value, group=self._objects)
            return found

    def all_reduce(self, tensors: Sequence["Tensor"]) -> None:
        # One flat sum by hand, and no DistributedDataParallel: that averages after each backward pass, and here
        # packs, which differ in number and weight between processes, are shares of a sum over the whole batch.
        import torch

        with self.watched(), torch.no_grad():
            for bucket in _buckets(tensors):
                # In float32: added in bfloat16, gradients would be rounded once more per rank.
                flat = torch.cat([each.reshape(-1).float() for each in bucket])
                self._distributed.all_reduce(flat)
                for each, summed in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                    each.copy_(summed.view_as(each))

    @contextmanager
    def watched(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not _of_connection(error):
                raise
            raise LostError(self._reason()) from error

    def leave(self, error: BaseException | None) -> None:
        """Close the connections, so that nobody waits for this process any longer; an error of its own is left word of.

        NCCL's are left to the system: closing them waits for what a lost process will never send.
        """
        if isinstance(error, Exception) and not isinstance(error, StopAsked | LostError):
            _store().set("reason", str(error) if isinstance(error, RunnerError) else f"{type(error).__name__}: {error}")
        self._distributed.destroy_process_group(self._objects)
        if error is None or self._distributed.get_backend() == "gloo":
            self._distributed.destroy_process_group()

    def _reason(self) -> str:
        """Return why a process is lost: in its own words, if it left any."""
        global _lost
        _lost = True
        try:
            # `check` does not wait, `get` of a key that is missing would.
            if _store().check(["reason"]):
                return str(_store().get("reason").decode())
        except RuntimeError:  # the machine that kept them is lost, too
            pass
        return (
            f"torchrun: one of the {self.rank.world_size} processes was lost (killed, or its machine is gone); the "
            "same command continues from the last checkpoint, with as many processes as you like."
        )


_group: Group = Group()
_lost = False  # then torchrun is ending us, and it may be process 0 that is gone


def group() -> Group:
    """Return the processes that have joined for the run that is being executed."""
    return _group


@contextmanager
def joined(plan_id: str) -> Iterator[Group]:
    """Within the block this process is connected with the others, if there are any.

    Raises `RequestError` where they have not made the same plan.
    """
    global _group
    if this_rank().world_size == 1:
        yield _group
        return
    connected = _group = TorchGroup(this_rank())
    for number in (signal.SIGINT, signal.SIGTERM):
        # Torchrun sends them to all that are left, and ends those that do not end by themselves. A job's steps listen
        # to them; what is written afterwards is not to be cut off.
        signal.signal(number, lambda *_: None)
    try:
        _require_same(connected.all_gather(plan_id))
        yield connected
    except BaseException as error:
        connected.leave(error)
        raise
    else:
        connected.leave(None)
    finally:
        _group = Group()


def speaks(sentence: str) -> bool:
    """Say whether this process is to print an error: the first that meets it does."""
    if this_rank().world_size == 1:
        return True
    try:
        # `add` counts in the store: the first gets 1.
        return bool(_store().add(f"reported/{sha256(sentence.encode()).hexdigest()[:16]}", 1) == 1)
    except RuntimeError:
        return True


def end(code: int) -> None:
    """Let process 0 end first where something failed: once one process has, torchrun ends those that are left."""
    if this_rank().world_size == 1 or code == 0:
        return
    try:
        if this_rank().first:
            _store().set("over", str(code))  # torchrun reports the first process to end, and ends the others
        until = time.monotonic() + (0.0 if _lost else EXIT_WAIT_SECONDS)
        while not _store().check(["over"]) and time.monotonic() < until:
            time.sleep(0.05)
    except RuntimeError:  # there is nobody left to wait for
        return


def _require_same(plan_ids: Sequence[str]) -> None:
    other = next((number for number, plan_id in enumerate(plan_ids) if plan_id != plan_ids[0]), None)
    if other is not None:
        raise RequestError(
            f"torchrun: process 0 has made plan {plan_ids[0][:16]} and process {other} plan {plan_ids[other][:16]}; "
            "all need the same data, model and keys; on different machines set backend.dtype, as auto depends on each."
        )


def _of_connection(error: RuntimeError) -> bool:
    """Say whether an error comes of a broken connection between processes; gloo's are known by their words only."""
    from torch import distributed

    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, distributed.DistError) or any(word in str(error) for word in words)


def _buckets(tensors: Sequence["Tensor"]) -> Iterator[list["Tensor"]]:
    # One call for many small tensors: each all-reduce has a fixed cost of its own.
    held: list[Tensor] = []
    for tensor in tensors:
        if held and sum(each.numel() for each in held) + tensor.numel() > BUCKET:
            yield held
            held = []
        held.append(tensor)
    if held:
        yield held


@cache
def _store() -> "Store":
    """Return torchrun's key-value store, which all ranks can read."""
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(rendezvous("env://", timeout=TIMEOUT))[0]
    return store
