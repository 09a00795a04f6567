"""A row as the model sees it: all of its text, in pieces that are read, learned or cut off."""

import pytest

from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.kinds.problem import Problem
from runner.data.rows import Message, Row
from runner.models.chat.shown_row import shown_row
from runner.models.chat.tokenizer import ChatTokenizer
from tests.models.chat.tool_rows import conversations, tokenizer_folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    return ChatTokenizer(tokenizer_folder(tmp_path_factory.mktemp("model"), "hermes"))


def test_the_pieces_of_a_row_are_all_of_its_text_and_what_is_learned_is_each_turn_of_the_assistant(
    tokenizer: ChatTokenizer,
) -> None:
    for row in conversations(3, 30, "hermes"):
        found = shown_row(tokenizer, row, 100_000)
        [pieces] = found.answers
        assert found.prompt + "".join(piece.text for piece in pieces) == tokenizer.render(row.messages, tools=row.tools)
        learned = [piece.text for piece in pieces if piece.fate == "learned"]
        turns = [turn for turn in row.messages if turn.role == "assistant" and turn.weight != 0]
        assert all(text.endswith("<|im_end|>\n") for text in learned)
        assert [text.startswith(turn.content or "<tool_call>") for text, turn in zip(learned, turns, strict=True)]


def test_a_pair_has_its_prompt_once_and_what_is_behind_the_limit_is_cut(tokenizer: ChatTokenizer) -> None:
    pair = Pair((Message("user", "Hi"),), (Message("assistant", "Yes " * 30),), (Message("assistant", "No"),))
    whole = shown_row(tokenizer, pair, 1000)
    assert whole.prompt.endswith("<|im_start|>assistant\n")
    assert [[piece.text for piece in each] for each in whole.answers] == [
        ["Yes " * 30 + "<|im_end|>\n"],
        ["No<|im_end|>\n"],
    ]
    room = len(tokenizer.row(pair).prompt) + 5
    cut = shown_row(tokenizer, pair, room)
    assert [piece.fate for piece in cut.answers[0]] == ["learned", "cut"]
    assert "".join(piece.text for piece in cut.answers[0]) == "Yes " * 30 + "<|im_end|>\n"


@pytest.mark.parametrize("row", [Problem((Message("user", "Hi"),))])
def test_a_prompt_alone_is_shown_up_to_where_the_model_begins(row: Row, tokenizer: ChatTokenizer) -> None:
    found = shown_row(tokenizer, row, 1000)
    assert found.answers == []
    assert found.prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_a_letter_of_several_tokens_at_the_beginning_of_an_answer_is_shown_whole(tokenizer: ChatTokenizer) -> None:
    row = Conversation((Message("user", "Hi"), Message("assistant", "ß🙂")))
    [pieces] = shown_row(tokenizer, row, 1000).answers
    assert [piece.text for piece in pieces] == ["ß🙂<|im_end|>\n"]
