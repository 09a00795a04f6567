"""Several processes that carry out one job together, as `torchrun` starts them; usually there is only one.

    torchrun --nproc_per_node=2 -m runner …

All make the same plan and walk through the same steps, event by event. Process 0 alone writes: the journal,
checkpoints, the model, MLflow, the terminal; the others only compute. After each event all agree on whether
to stop, so that a signal to any of them ends all at the same place. A process that dies is known to the others
at once by its connection, and they end; torchrun, too, ends what is left.

Torch is imported only where there are several processes. What they compute together is the backend's matter.
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
from typing import TYPE_CHECKING, Any

from runner.errors import LostError, RequestError, RunnerError, StopAsked

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT = timedelta(minutes=30)
"""Beyond it a process that does not answer in the middle of a sum is taken for lost."""
PATIENCE = timedelta(days=1)
"""The same between two events, where the others may wait for process 0: it writes, fetches or answers alone."""
BUCKET = 1 << 26
"""Numbers summed at once: all of an adapter's gradients, and a quarter of a GB where every weight learns."""
LAST_WORDS_SECONDS = 30.0
"""How long the others wait for process 0 to end first; as long as torchrun gives it."""


@dataclass(frozen=True)
class Place:
    """Which process this is of how many, in all and on this machine."""

    number: int = 0
    count: int = 1
    local_number: int = 0
    local_count: int = 1

    @property
    def first(self) -> bool:
        """Say whether this process is the one that writes and speaks."""
        return self.number == 0


def here(environment: Mapping[str, str] = os.environ) -> Place:
    """Return this process's place, which torchrun leaves in the environment; without it there is one process."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if not all(environment.get(name) for name in (*names, "MASTER_ADDR", "MASTER_PORT")):
        return Place()
    return Place(*(int(environment[name]) for name in names))


class World:
    """The processes that carry out a job. Alone, as here, a process gets back what it gives."""

    place = Place()

    def agree(self, flag: bool) -> bool:
        """Return whether any process says yes. Waits for all, however long process 0 has something to do alone."""
        return flag

    def tell(self, value: Any) -> Any:
        """Return what process 0 gives; it may be anything that can be pickled."""
        return value

    def collect(self, value: Any) -> list[Any]:
        """Return what each process gives, in order of their numbers."""
        return [value]

    def add(self, tensors: Sequence["Tensor"]) -> None:
        """Replace each tensor by its sum over the processes, which have tensors of the same shapes."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block an error that comes of a lost process is raised as `LostError`."""
        yield


class Several(World):
    """Some processes connected by torch.distributed: gloo for words and CPUs, NCCL for what lies on GPUs."""

    def __init__(self, place: Place) -> None:
        import torch
        from torch import distributed

        self.place, self._distributed = place, distributed
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
        distributed.init_process_group(
            backend, store=_store(), rank=place.number, world_size=place.count, timeout=TIMEOUT
        )
        self._words = distributed.new_group(backend="gloo", timeout=PATIENCE)

    def agree(self, flag: bool) -> bool:
        import torch

        with self.watched():
            votes = torch.tensor([int(flag)])
            self._distributed.all_reduce(votes, group=self._words)
            return bool(votes.item())

    def tell(self, value: Any) -> Any:
        with self.watched():
            box = [value if self.place.first else None]
            self._distributed.broadcast_object_list(box, src=0, group=self._words)
            return box[0]

    def collect(self, value: Any) -> list[Any]:
        with self.watched():
            found: list[Any] = [None] * self.place.count
            self._distributed.all_gather_object(found, value, group=self._words)
            return found

    def add(self, tensors: Sequence["Tensor"]) -> None:
        # One flat sum by hand, and no DistributedDataParallel: that averages after each backward pass, and here
        # packs, which differ in number and weight between processes, are shares of a sum over the whole batch.
        import torch

        with self.watched(), torch.no_grad():
            for bucket in _buckets(tensors):
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
        self._distributed.destroy_process_group(self._words)
        if error is None or self._distributed.get_backend() == "gloo":
            self._distributed.destroy_process_group()

    def _reason(self) -> str:
        """Return why a process is lost: in its own words, if it left any."""
        global _lost
        _lost = True
        try:
            if _store().check(["reason"]):
                return str(_store().get("reason").decode())
        except RuntimeError:  # the machine that kept them is lost, too
            pass
        return (
            f"torchrun: one of the {self.place.count} processes was lost (killed, or its machine is gone); the same "
            "command goes on from the last checkpoint, with as many processes as you like."
        )


_world = World()
_lost = False  # then torchrun is ending us, and it may be process 0 that is gone


def world() -> World:
    """Return the processes that have joined for the job at hand."""
    return _world


@contextmanager
def joined(plan_id: str) -> Iterator[World]:
    """Within the block this process is connected with the others, if there are any.

    Raises `RequestError` where they have not made the same plan.
    """
    global _world
    if here().count == 1:
        yield _world
        return
    several = _world = Several(here())
    for number in (signal.SIGINT, signal.SIGTERM):
        # Torchrun sends them to all that are left, and ends those that do not end by themselves. A job's steps listen
        # to them; what is written afterwards is not to be cut off.
        signal.signal(number, lambda *_: None)
    try:
        _require_same(several.collect(plan_id))
        yield several
    except BaseException as error:
        several.leave(error)
        raise
    else:
        several.leave(None)
    finally:
        _world = World()


def speaks(sentence: str) -> bool:
    """Say whether this process is to tell the user of an error: the first that meets it does."""
    if here().count == 1:
        return True
    try:
        return bool(_store().add(f"told/{sha256(sentence.encode()).hexdigest()[:16]}", 1) == 1)
    except RuntimeError:
        return True


def end(code: int) -> None:
    """Let process 0 end first where something failed: once one process has, torchrun ends those that are left."""
    if here().count == 1 or code == 0:
        return
    try:
        if here().first:
            _store().set("over", str(code))
        until = time.monotonic() + (0.0 if _lost else LAST_WORDS_SECONDS)
        while not _store().check(["over"]) and time.monotonic() < until:
            time.sleep(0.05)
    except RuntimeError:  # there is nobody left to wait for
        return


def _require_same(plan_ids: Sequence[str]) -> None:
    other = next((number for number, plan_id in enumerate(plan_ids) if plan_id != plan_ids[0]), None)
    if other is not None:
        raise RequestError(
            f"torchrun: process 0 has made plan {plan_ids[0][:16]} and process {other} plan {plan_ids[other][:16]}; "
            "all need the same data, model and keys; on unlike machines name backend.dtype, which auto takes from each."
        )


def _of_connection(error: RuntimeError) -> bool:
    """Say whether an error comes of a broken connection between processes; gloo's are known by their words only."""
    from torch import distributed

    told = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, distributed.DistError) or any(word in str(error) for word in told)


def _buckets(tensors: Sequence["Tensor"]) -> Iterator[list["Tensor"]]:
    held: list[Tensor] = []
    for tensor in tensors:
        if held and sum(each.numel() for each in held) + tensor.numel() > BUCKET:
            yield held
            held = []
        held.append(tensor)
    if held:
        yield held


@cache
def _store() -> Any:
    """Return the few words that all can read, kept by torchrun."""
    from torch.distributed.rendezvous import rendezvous

    return next(rendezvous("env://", timeout=TIMEOUT))[0]
