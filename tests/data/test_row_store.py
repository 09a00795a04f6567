"""Rows on disk are the rows that were written, by number, and their file has the fingerprint of the split."""

from hashlib import sha256
from pathlib import Path

import pytest

from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.row_store import RowStore, write_rows
from runner.data.rows import Message, Row, canonical, canonical_lines

TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
PAIRS: list[Row] = [
    Pair(
        (Message("system", "line\nbreak, \u2028 and ünïcode"), Message("user", f"question {number}" * number)),
        (Message("assistant", "good"),),
        (Message("assistant", ""),),
        TOOLS if number == 2 else None,
    )
    for number in range(1, 5)
]
CONVERSATIONS: list[Row] = [
    Conversation((Message("user", "Hi"), Message("assistant", None, weight=0, tool_calls=[{"id": "1"}])))
]


def stored(folder: Path, rows: list[Row], kind: str) -> RowStore:
    folder.mkdir()
    write_rows(folder, [(rows[:1], canonical_lines(rows[:1])), ([], b""), (rows[1:], canonical_lines(rows[1:]))])
    return RowStore(folder, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "rows"), [("preference", PAIRS), ("conversation", CONVERSATIONS)])
def test_rows_come_back_as_they_were(kind: str, rows: list[Row], tmp_path: Path) -> None:
    store = stored(tmp_path / "rows", rows, kind)
    assert len(store) == len(rows)
    assert [store[number] for number in reversed(range(len(rows)))] == rows[::-1]
    assert list(store) == rows
    assert store[1:3] == rows[1:3]


def test_the_file_is_what_the_fingerprint_is_made_of(tmp_path: Path) -> None:
    stored(tmp_path / "rows", PAIRS, "preference")
    content = (tmp_path / "rows" / "lines.jsonl").read_bytes()
    assert sha256(content).digest() == sha256(b"".join(canonical(row) + b"\n" for row in PAIRS)).digest()


def test_the_longest_line_of_some_rows_is_known_without_reading_them(tmp_path: Path) -> None:
    store = stored(tmp_path / "rows", PAIRS, "preference")
    for start, end in [(0, 4), (0, 1), (1, 3)]:
        assert store.longest(start, end) == 1 + max(len(canonical(row)) for row in PAIRS[start:end])


def test_there_is_no_row_beyond_the_last(tmp_path: Path) -> None:
    store = stored(tmp_path / "rows", PAIRS, "preference")
    for number in (4, -1):
        with pytest.raises(IndexError):
            store[number]
