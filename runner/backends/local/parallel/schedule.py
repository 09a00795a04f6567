"""Who computes which pack when: rows into packs, packs to ranks, and a rank's packs into rounds of its lanes.

    rows of a batch ── pack_rows ──▶ packs ── assign_packs ──▶ this rank's ── side_by_side ──▶ packs computed together

The sum over a batch does not depend on any of this: the number of a pack, from which its random numbers follow, and
the weights of its rows are those of the whole batch. `Schedule` is what the rest of the backend uses; `choose` says
once, in the step `prepare`, what it is on this machine.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

from runner.backends.local.keys import Local
from runner.distributed import Rank

TOKENS_AT_ONCE = {"cpu": 1_280, "cuda": 16_384}
"""What fills the machine: on a CPU a few hundred tokens a lane do, and more only take memory."""
LEAST_TOKENS = 512
"""What a lane needs to be worth it: fewer rows do not fill a product of matrices."""
LANE_GAIN = 1.25
"""How much faster lanes are than one pack at a time on all cores; packs of unequal sizes may use up the gain."""


class How(TypedDict, total=False):
    """How the work is done on a machine: the result of the step `prepare`, empty before it."""

    packed: bool
    """Whether rows share a forward call."""
    tokens_at_once: int
    lanes: int
    threads: int
    device: str
    processes: int


def choose(settings: Local, packed: bool, device: str, threads: int, num_processes: int) -> How:
    """Return how the work is done on this machine, which a resumed run keeps: it decides the result's last bits.

    `device` is torch's name of it, such as `cpu` or `cuda:1`.
    """
    at_once = settings.runtime.tokens_at_once
    kind = device.partition(":")[0]
    if at_once == "auto":
        at_once = TOKENS_AT_ONCE.get(kind, 4096)
    # Gradients of packs side by side are held apart for a while, which is expensive where all weights learn; and
    # there is one stream of random numbers only, from which nobody may draw then. Several processes are side by side
    # already.
    draws = settings.lora.dropout or settings.neftune_alpha
    may_have_lanes = num_processes == 1 and kind == "cpu" and packed and settings.tuning == "lora" and not draws
    return {
        "packed": packed,
        "tokens_at_once": at_once,
        "lanes": count_lanes(threads, at_once) if may_have_lanes else 1,
        "threads": threads,
        "device": device,
        "processes": num_processes,
    }


def count_lanes(threads: int, tokens_at_once: int) -> int:
    """Return how many lanes so many cores and so many tokens in memory are good for."""
    return max(1, min(threads, tokens_at_once // LEAST_TOKENS))


@dataclass(frozen=True)
class Schedule:
    """The place of a process among the ranks, its lanes, and the tokens that it computes at a time in all lanes."""

    rank: Rank
    lanes: int
    tokens_at_once: int

    @property
    def room(self) -> int:
        """The most tokens of a pack."""
        return max(1, self.tokens_at_once // self.lanes)

    def batch(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return the packs of a batch's rows, by their numbers; the same on every rank."""
        return pack_rows(lengths, self.room, self.rank.world_size * self.lanes)

    def neighbours(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return the packs of rows that keep their order, the same however many ranks and lanes there are."""
        return list(pack_neighbours(lengths, self.room))

    def rounds(self, sizes: Sequence[int]) -> Iterator[list[tuple[int, bool]]]:
        """Yield the packs, of so many tokens, that this rank computes side by side, each with whether it counts."""
        mine = assign_packs(sizes, self.rank)
        for together in side_by_side([sizes[number] for number, _ in mine], self.lanes, self.tokens_at_once):
            yield [mine[index] for index in together]


def pack_rows(lengths: Sequence[int], room: int, multiple: int = 1) -> list[list[int]]:
    """Assign rows 0, 1, 2, … to packs of about equal length, at most `room` tokens; return the rows of each pack.

    The longest rows come first. The number of packs is a multiple of `multiple`, so that every lane of every rank has
    one. A row longer than `room` is a pack by itself, in addition to that number.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    alone = [[index] for index in order if lengths[index] > room]
    rest = order[len(alone) :]
    # The fewest that can do; least-filled-first may overfill one all the same, and then needs more. Longest
    # rows first keeps that within a third of the best (Graham 1969, doi:10.1137/0117039).
    count = multiple * math.ceil(sum(lengths[index] for index in rest) / (room * multiple))
    while True:
        # No more packs than rows: an empty one would be a forward call for nothing.
        packs: list[list[int]] = [[] for _ in range(min(count, len(rest)))]
        filled = [0] * len(packs)
        for index in rest:
            least = filled.index(min(filled))
            packs[least].append(index)
            filled[least] += lengths[index]
        if max(filled, default=0) <= room:
            return alone + packs
        count += multiple


def pack_neighbours(lengths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Cut rows 0, 1, 2, … in their order into packs of at most `room` tokens; a longer row is a pack by itself."""
    pack: list[int] = []
    total = 0
    for index, length in enumerate(lengths):
        if pack and total + length > room:
            yield pack
            pack, total = [], 0
        pack.append(index)
        total += length
    if pack:
        yield pack


def assign_packs(sizes: Sequence[int], rank: Rank) -> list[tuple[int, bool]]:
    """Assign packs of so many tokens to ranks; return this rank's, each with whether it counts.

    Packs are dealt in their order, one to each rank at a time, the largest to the rank with the fewest tokens so far.
    If the last deal is short, a pack is computed a second time and does not count: a sharded model (FSDP) needs every
    rank in each forward call, and the others would only wait.
    """
    tokens = [0] * rank.world_size
    mine: list[tuple[int, bool]] = []
    for start in range(0, len(sizes), rank.world_size):
        packs = sorted(range(start, min(start + rank.world_size, len(sizes))), key=lambda number: -sizes[number])
        missing = rank.world_size - len(packs)
        # The smallest of the last deal is what is computed twice.
        dealt = [(number, True) for number in packs] + [(packs[-1], False)] * missing
        for (number, counts), owner in zip(dealt, sorted(range(rank.world_size), key=tokens.__getitem__), strict=True):
            tokens[owner] += sizes[number]
            if owner == rank.rank:
                mine.append((number, counts))
    return mine


def side_by_side(sizes: Sequence[int], lanes: int, tokens_at_once: int) -> Iterator[list[int]]:
    """Yield the packs that go through the lanes together, round by round, the largest first.

    A pack goes alone, on all cores, if the other lanes would be idle for too long, or if together they would take
    more memory than `tokens_at_once`. With one lane packs keep their order.
    """
    left = sorted(range(len(sizes)), key=lambda number: -sizes[number]) if lanes > 1 else list(range(len(sizes)))
    while left:
        together = left[:lanes]
        work = sum(sizes[number] for number in together)
        # Side by side a round lasts as long as its largest pack does on a lane's share of the cores, one after
        # the other as long as their sum on all; lanes are LANE_GAIN times as fast.
        if work * LANE_GAIN < lanes * sizes[together[0]] or work > tokens_at_once:
            together = together[:1]
        yield together
        left = left[len(together) :]
