"""Lanes: what goes side by side, and that it results in the same."""

import threading

import pytest
import torch

from runner.backends.local.parallel.lanes import Lanes


def test_lanes_share_the_cores_and_give_them_back() -> None:
    before, both = torch.get_num_threads(), threading.Barrier(2, timeout=30)

    def work() -> tuple[int, bool]:
        both.wait()  # one after the other, they would never meet
        return torch.get_num_threads(), torch.is_grad_enabled()

    torch.set_num_threads(4)
    try:
        with torch.no_grad():
            assert Lanes(2, 4).run([work, work]) == [(2, False), (2, False)]
        assert torch.get_num_threads() == 4
        assert Lanes(2, 4).run([torch.get_num_threads]) == [4], "one alone has all"
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_lane_is_the_callers() -> None:
    def fail() -> None:
        raise MemoryError("too much")

    with pytest.raises(MemoryError, match="too much"):
        Lanes(2, 2).run([fail, fail])
