"""Rows lie one behind the other, each with its prompt once; what is scored and seen is what the tokens say."""

import torch
from hypothesis import given

from runner.backends.local.scoring.packing import Segment, pack
from runner.models.chat.tokenizer import TokenRow
from runner.training.examples import num_tokens
from tests.backends.local.plain import AWKWARD, batches, pair


def test_a_prompt_is_stored_once_and_its_answers_continue_where_it_ends() -> None:
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
