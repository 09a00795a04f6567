"""Which pack is computed when and by whom: every row once, nothing over the limit, all with as much to do."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.backends.local.parallel.schedule import count_lanes, pack_neighbours, pack_rows, side_by_side


@given(lengths=st.lists(st.integers(0, 50)), room=st.integers(1, 100))
def test_groups_keep_the_order_and_hold_as_many_as_fit(lengths: list[int], room: int) -> None:
    groups = list(pack_neighbours(lengths, room))
    assert [index for indices in groups for index in indices] == list(range(len(lengths)))
    for indices in groups:
        assert len(indices) == 1 or sum(lengths[index] for index in indices) <= room
    for one, following in pairwise(groups):
        assert sum(lengths[index] for index in one) + lengths[following[0]] > room


@given(lengths=st.lists(st.integers(1, 50)), room=st.integers(1, 100), multiple=st.integers(1, 4))
def test_dealt_packs_hold_every_row_once_and_no_more_than_fits(lengths: list[int], room: int, multiple: int) -> None:
    packs = pack_rows(lengths, room, multiple)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(packs)
    assert all(len(pack) == 1 or sum(lengths[index] for index in pack) <= room for pack in packs)
    several = [pack for pack in packs if sum(lengths[index] for index in pack) <= room]
    assert len(several) % multiple == 0 or len(several) == sum(map(len, several)), "short of rows, each has its own"


def test_dealt_packs_are_of_about_one_size() -> None:
    assert pack_rows([270, 271, 272, 275], 640, 2) == [[3, 0], [2, 1]]
    assert pack_rows([270, 271, 272, 275], 640) == [[3, 0], [2, 1]], "two packs are needed, and none is left half empty"
    assert pack_rows([900, 300, 200, 250, 150], 640) == [[0], [1, 4], [3, 2]], "what is too long is alone"
    assert pack_rows([5, 5], 640, 2) == [[0], [1]]
    assert pack_rows([], 10) == []


@given(sizes=st.lists(st.integers(1, 900)), lanes=st.integers(1, 4), at_once=st.integers(1, 2000))
def test_every_pack_is_computed_once_and_together_they_fit(sizes: list[int], lanes: int, at_once: int) -> None:
    found = list(side_by_side(sizes, lanes, at_once))
    assert sorted(number for together in found for number in together) == list(range(len(sizes)))
    for together in found:
        assert len(together) <= lanes
        assert len(together) == 1 or sum(sizes[number] for number in together) <= at_once


def test_packs_of_different_sizes_do_not_wait_for_each_other() -> None:
    assert list(side_by_side([500, 510, 490, 505], 2, 1280)) == [[1, 3], [0, 2]]
    assert list(side_by_side([100, 600, 90], 2, 1280)) == [[1], [0, 2]]
    assert list(side_by_side([640, 640], 2, 1000)) == [[0], [1]], "memory goes first"
    assert list(side_by_side([3, 9, 4], 1, 10)) == [[0], [1], [2]]


@pytest.mark.parametrize(("threads", "tokens", "expected"), [(2, 1280, 2), (16, 1280, 2), (1, 1280, 1), (4, 1, 1)])
def test_a_lane_needs_a_core_and_tokens_enough(threads: int, tokens: int, expected: int) -> None:
    assert count_lanes(threads, tokens) == expected
