"""Tokens on disk are those that the tokenizer gives, made block by block, and only when they are asked for."""

from pathlib import Path

import numpy as np
import pytest

from runner.backends.local.training import token_store
from runner.backends.local.training.token_store import Block, TokenStore
from runner.data.images import Image
from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.row_store import RowStore, write_rows
from runner.data.rows import Message, Row, canonical_lines
from runner.errors import DataError
from runner.models.chat.tokenizer import ChatTokenizer
from tests.backends.local.plain import AWKWARD
from tests.pictures import picture


def pairs(count: int) -> list[Row]:
    return [
        Pair(
            (Message("user", f"question {number} " + "and so on " * (number % 5)),),
            (Message("assistant", "a good answer " * (1 + number % 3)),),
            (Message("assistant", f"{number}"),),
        )
        for number in range(count)
    ]


def chats(count: int) -> list[Row]:
    return [
        Conversation(
            (
                Message("user", f"question {number}"),
                Message("assistant", "no", weight=0),
                Message("user", "please"),
                Message("assistant", f"answer {number}"),
            )
        )
        for number in range(count)
    ]


def store(folder: Path, rows: list[Row], tokenizer: ChatTokenizer, max_length: int = 200) -> TokenStore:
    kept = folder / "rows"
    if not kept.exists():
        kept.mkdir()
        write_rows(kept, [(rows, canonical_lines(rows))])
    stored = RowStore(kept, "preference" if isinstance(rows[0], Pair) else "conversation")
    return TokenStore(folder / "tokens", stored, "fingerprint", tokenizer, max_length, "train")


@pytest.fixture
def tokenizer(tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer(tiny_model)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "BLOCK_ROWS", 4)


def blocks(folder: Path) -> list[str]:
    return sorted(path.name[-6:] for path in (folder / "tokens").glob("*-*"))


@pytest.mark.parametrize("rows", [pairs(11), chats(11)], ids=["pairs", "conversations"])
def test_rows_are_tokenised_as_each_by_itself(rows: list[Row], tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    found = store(tmp_path, rows, tokenizer)
    expected = [tokenizer.row(row, 200) for row in rows]
    assert [found[number] for number in range(len(rows))] == expected
    assert found[3:6] == expected[3:6]
    assert found.lengths(2) == [len(row.prompt) + sum(map(len, row.answers)) for row in expected[8:]]


def test_only_the_blocks_of_rows_asked_for_are_tokenised(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    found = store(tmp_path, pairs(11), tokenizer)
    assert found.num_blocks == 3
    assert blocks(tmp_path) == []
    found[5], found[4]
    assert blocks(tmp_path) == ["000001"]


def test_another_run_finds_the_tokens_on_disk(
    tokenizer: ChatTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = store(tmp_path, pairs(5), tokenizer)[0]
    other = store(tmp_path, pairs(5), ChatTokenizer(tokenizer.folder))
    monkeypatch.setattr(ChatTokenizer, "rows", None)
    assert other[0] == expected


@pytest.mark.parametrize("change", ["length", "template"])
def test_other_lengths_and_templates_have_tokens_of_their_own(
    change: str, tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    store(tmp_path, pairs(3), tokenizer)[0]
    other = tokenizer
    if change == "template":
        (tmp_path / "model").mkdir()
        for path in tokenizer.folder.iterdir():
            (tmp_path / "model" / path.name).symlink_to(path)
        (tmp_path / "model" / "chat_template.jinja").unlink(missing_ok=True)
        (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages | map(attribute='content') | join }}")
        other = ChatTokenizer(tmp_path / "model")
    found = store(tmp_path, pairs(3), other, 150 if change == "length" else 200)
    assert found[0] == other.row(pairs(3)[0], 150 if change == "length" else 200)
    assert len(blocks(tmp_path)) == 2


def test_a_row_that_cannot_be_learned_is_named(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    short = Pair((Message("user", "a"),), (Message("assistant", "b"),), (Message("assistant", "c"),))
    rows: list[Row] = [short] * 8
    rows[6] = Pair((Message("user", "x" * 500),), (Message("assistant", "a"),), (Message("assistant", "b"),))
    found = store(tmp_path, rows, tokenizer)
    assert found.unchecked() == [1]
    with pytest.raises(DataError, match=r"dataset\.train, row 7: the prompt alone fills backend\.max_length=200"):
        found[4]
    assert blocks(tmp_path) == []


def test_rows_with_images_are_looked_at_first_and_keep_them(seeing_model: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer(seeing_model, sees=True)
    rows: list[Row] = [Pair((Message("user", "a"),), (Message("assistant", "b"),), (Message("assistant", "c"),))] * 12
    seen = Message("user", "How is it?", images=(Image(picture(40, 30)), Image(picture(), at=4)))
    rows[5] = Pair((seen,), (Message("assistant", "Fresh."),), (Message("assistant", "Blue."),))
    found = store(tmp_path, rows, tokenizer)
    assert found.unchecked() == [1]
    assert found[5] == tokenizer.row(rows[5], 200)
    assert [each.num_tokens for each in found[5].images] == [4, 1]
    assert found[4].images == ()


def test_a_block_written_and_mapped_is_the_same(tmp_path: Path) -> None:
    Block.of(AWKWARD).write(tmp_path)
    found = Block.read(tmp_path)
    assert [found.row(number) for number in range(len(AWKWARD))] == AWKWARD
    assert isinstance(found.ids, np.memmap)
    assert found.ids.nbytes + found.learned.nbytes == 5 * found.ids.size
