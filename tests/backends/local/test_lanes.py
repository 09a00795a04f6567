"""Lanes: what goes side by side, and that it comes to the same."""

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runner.backends.local.lanes import Lanes, count, rounds


@given(sizes=st.lists(st.integers(1, 900)), lanes=st.integers(1, 4), at_once=st.integers(1, 2000))
def test_every_pack_is_computed_once_and_together_they_fit(sizes: list[int], lanes: int, at_once: int) -> None:
    found = list(rounds(sizes, lanes, at_once))
    assert sorted(number for together in found for number in together) == list(range(len(sizes)))
    for together in found:
        assert len(together) <= lanes
        assert len(together) == 1 or sum(sizes[number] for number in together) <= at_once


def test_packs_of_unlike_sizes_do_not_wait_for_each_other() -> None:
    assert list(rounds([500, 510, 490, 505], 2, 1280)) == [[1, 3], [0, 2]]
    assert list(rounds([100, 600, 90], 2, 1280)) == [[1], [0, 2]]
    assert list(rounds([640, 640], 2, 1000)) == [[0], [1]], "memory goes first"
    assert list(rounds([3, 9, 4], 1, 10)) == [[0], [1], [2]]


@pytest.mark.parametrize(("threads", "tokens", "expected"), [(2, 1280, 2), (16, 1280, 2), (1, 1280, 1), (4, 1, 1)])
def test_a_lane_needs_a_core_and_tokens_enough(threads: int, tokens: int, expected: int) -> None:
    assert count(threads, tokens) == expected


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
