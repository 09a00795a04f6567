"""Packs computed side by side on a CPU: a lane is a worker thread that computes one pack on its own cores.

On all cores, a pack waits at a barrier in each of its thousand small operations. Packs on separate cores do not wait
for each other: the same work takes four fifths of the time (measured on 4 cores). Gradients are added in the order of
the packs, so the result does not depend on which lane finishes first.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property
from typing import TypeVar

import torch

T = TypeVar("T")


class Lanes:
    """Some threads, each with as many of the cores."""

    def __init__(self, count: int = 1, threads: int = 1) -> None:
        self.count, self.threads = count, threads

    def run(self, works: Sequence[Callable[[], T]]) -> list[T]:
        """Return what each piece of work returns: one alone has all cores, several go side by side."""
        if len(works) == 1:
            return [works[0]()]
        # Whether gradients are recorded is a thread's own state in torch, and a new thread records.
        grad_enabled, before = torch.is_grad_enabled(), torch.get_num_threads()

        def in_lane(work: Callable[[], T]) -> T:
            torch.set_num_threads(self.threads // self.count)  # OpenMP counts for each thread of ours
            with torch.set_grad_enabled(grad_enabled):
                return work()

        torch.set_num_threads(self.threads // self.count)  # MKL counts for all
        try:
            running = [self._pool.submit(in_lane, work) for work in works]
            # All of them, before the first error is raised: nobody computes on after that.
            wait(running)
            return [each.result() for each in running]
        finally:
            torch.set_num_threads(before)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.count, "lane")
