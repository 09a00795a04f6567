"""Packs computed side by side on a CPU: a lane is a thread of ours that computes one pack on its share of the cores.

A pack on all cores waits at a barrier in each of its thousand small operations. Packs on cores of their own do not
wait for each other, and the same work is done in four fifths of the time. Their gradients are added up in the packs'
order, so that the result does not hang on which lane was first.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property
from typing import TypeVar

import torch

T = TypeVar("T")

LEAST_TOKENS = 512
"""What a lane needs to be worth it: fewer rows do not fill a product of matrices."""
GAIN = 1.25
"""How much faster lanes are than one pack at a time on all cores; packs of unlike sizes may use up the gain."""


def count(threads: int, tokens_at_once: int) -> int:
    """Return how many lanes so many cores and so many tokens in memory are good for."""
    return max(1, min(threads, tokens_at_once // LEAST_TOKENS))


def rounds(sizes: Sequence[int], lanes: int, tokens_at_once: int) -> Iterator[list[int]]:
    """Yield the numbers of the packs to be computed side by side, round by round, the largest first.

    A pack goes alone, on all cores, where its neighbours would leave their lanes idle for too long, and where
    together they would take more memory than `tokens_at_once`. With one lane packs keep their order.
    """
    left = sorted(range(len(sizes)), key=lambda number: -sizes[number]) if lanes > 1 else list(range(len(sizes)))
    while left:
        together = left[:lanes]
        work = sum(sizes[number] for number in together)
        if work * GAIN < lanes * sizes[together[0]] or work > tokens_at_once:
            together = together[:1]
        yield together
        left = left[len(together) :]


class Lanes:
    """Some threads, each with as many of the cores."""

    def __init__(self, count: int = 1, threads: int = 1) -> None:
        self.count, self.threads = count, threads

    def run(self, works: Sequence[Callable[[], T]]) -> list[T]:
        """Return what each piece of work returns: one alone has all cores, several go side by side."""
        if len(works) == 1:
            return [works[0]()]
        grad_enabled, before = torch.is_grad_enabled(), torch.get_num_threads()

        def in_lane(work: Callable[[], T]) -> T:
            torch.set_num_threads(self.threads // self.count)  # OpenMP counts for each thread of ours
            with torch.set_grad_enabled(grad_enabled):
                return work()

        torch.set_num_threads(self.threads // self.count)  # MKL counts for all
        try:
            running = [self._pool.submit(in_lane, work) for work in works]
            wait(running)
            return [each.result() for each in running]
        finally:
            torch.set_num_threads(before)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.count, "lane")
