"""Rows lie one behind the other, each with its prompt once; what is scored and seen is what the tokens say."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from runner.backends.local.layout import Segment, deal, group, num_tokens, pack
from runner.tokens import TokenRow
from tests.backends.local.plain import AWKWARD, batches, pair


def test_a_prompt_stands_once_and_its_answers_go_on_where_it_ends() -> None:
    laid = pack([pair([5, 6], [7, 8], [9])])
    assert laid.ids.tolist() == [[5, 6, 7, 8, 9]]
    assert laid.positions.tolist() == [[0, 1, 2, 3, 2]]
    assert laid.segments == (Segment(0, 2), Segment(2, 4, 0, 2), Segment(4, 5, 0, 2))
    assert laid.predict.tolist() == [1, 2, 1]
    assert laid.labels.tolist() == [7, 8, 9]
    assert laid.owner.tolist() == [0, 0, 1]
    assert laid.row_lengths.tolist() == [[4] * 5]
    assert laid.shape == (1, 2)


def test_rows_follow_each_other_each_counted_from_its_own_start() -> None:
    laid = pack([pair([5, 6], [7], [8]), pair([9], [10], [11, 12])])
    assert laid.ids.tolist() == [[5, 6, 7, 8, 9, 10, 11, 12]]
    assert laid.positions.tolist() == [[0, 1, 2, 2, 0, 1, 1, 2]]
    assert laid.segments[3:] == (Segment(4, 5), Segment(5, 6, 4, 5), Segment(6, 8, 4, 5))
    assert laid.owner.tolist() == [0, 1, 2, 3, 3]
    assert laid.row_lengths.tolist() == [[3] * 4 + [3] * 4]


def test_a_row_with_one_answer_is_one_segment_in_plain_order() -> None:
    laid = pack([pair([5, 6], [7, 8]), pair([], [9, 10]), pair([11], [12])])
    assert laid.segments == (Segment(0, 4), Segment(4, 6), Segment(6, 8))
    assert laid.positions.tolist() == [[0, 1, 2, 3, 0, 1, 0, 1]]
    assert laid.predict.tolist() == [1, 2, 4, 6]
    assert laid.labels.tolist() == [7, 8, 10, 12]


def test_tokens_that_are_not_learned_are_read_but_not_scored() -> None:
    laid = pack([TokenRow([5], ([6, 7, 8],), ([False, True, False],))])
    assert laid.ids.tolist() == [[5, 6, 7, 8]]
    assert laid.labels.tolist() == [7]


def test_the_first_token_of_a_text_is_not_scored() -> None:
    laid = pack([pair([], [5], [6, 7])])
    assert laid.labels.tolist() == [7]
    assert laid.owner.tolist() == [1]
    assert laid.segments == (Segment(0, 1), Segment(1, 3))


def seen_by(segments: tuple[Segment, ...], position: int) -> list[int]:
    """Return the positions that a position may look at."""
    (segment,) = (each for each in segments if each.start <= position < each.end)
    return [*range(segment.prompt, segment.prompt_end), *range(segment.start, position + 1)]


@given(rows=batches() | batches(1) | batches(3))
def test_each_scored_token_sees_exactly_its_prompt_and_what_its_answer_has_said(rows: list[TokenRow]) -> None:
    laid = pack(rows)
    ids, positions = laid.ids[0].tolist(), laid.positions[0].tolist()
    found = [
        ([ids[each] for each in seen_by(laid.segments, position)], label, owner)
        for position, label, owner in zip(laid.predict.tolist(), laid.labels.tolist(), laid.owner.tolist(), strict=True)
    ]
    expected, owner = [], 0
    for row in rows:
        for answer, learned in zip(row.answers, row.learned, strict=True):
            for at, wanted in enumerate(learned):
                if wanted and row.prompt + answer[:at]:
                    expected.append((row.prompt + answer[:at], answer[at], owner))
            owner += 1
    assert found == expected
    assert len(ids) == sum(num_tokens(row) for row in rows)
    for position in range(len(ids)):  # as many tokens before it as its position says
        assert len(seen_by(laid.segments, position)) == positions[position] + 1


def test_a_pack_goes_to_a_device_whole() -> None:
    laid = pack(AWKWARD)
    moved = laid.to(torch.device("meta"))
    assert {each.device.type for each in vars(moved).values() if isinstance(each, torch.Tensor)} == {"meta"}
    assert (moved.segments, moved.shape) == (laid.segments, laid.shape)


@given(lengths=st.lists(st.integers(0, 50)), room=st.integers(1, 100))
def test_groups_keep_the_order_and_hold_as_many_as_fit(lengths: list[int], room: int) -> None:
    groups = list(group(lengths, room))
    assert [index for indices in groups for index in indices] == list(range(len(lengths)))
    for indices in groups:
        assert len(indices) == 1 or sum(lengths[index] for index in indices) <= room
    for one, following in pairwise(groups):
        assert sum(lengths[index] for index in one) + lengths[following[0]] > room


@given(lengths=st.lists(st.integers(1, 50)), room=st.integers(1, 100), multiple=st.integers(1, 4))
def test_dealt_packs_hold_every_row_once_and_no_more_than_fits(lengths: list[int], room: int, multiple: int) -> None:
    packs = deal(lengths, room, multiple)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(packs)
    assert all(len(pack) == 1 or sum(lengths[index] for index in pack) <= room for pack in packs)
    several = [pack for pack in packs if sum(lengths[index] for index in pack) <= room]
    assert len(several) % multiple == 0 or len(several) == sum(map(len, several)), "short of rows, each has its own"


def test_dealt_packs_are_of_about_one_size() -> None:
    assert deal([270, 271, 272, 275], 640, 2) == [[3, 0], [2, 1]]
    assert deal([270, 271, 272, 275], 640) == [[3, 0], [2, 1]], "two packs are needed, and none is left half empty"
    assert deal([900, 300, 200, 250, 150], 640) == [[0], [1, 4], [3, 2]], "what is too long stands alone"
    assert deal([5, 5], 640, 2) == [[0], [1]]
    assert deal([], 10) == []
