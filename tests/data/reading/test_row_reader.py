"""The quick ways to read and to pass rows say what the thorough ones say."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data.containers import Block
from runner.data.formats import Format, named
from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.quality.unread_keys import Reader
from runner.data.reading.files import DataFile
from runner.data.reading.row_reader import Steps, good_rows
from runner.data.rows import Message
from tests.data.samples import Raw, foundry, simple_pair, unhurried

FILE = DataFile("pairs.jsonl", Path("pairs.jsonl"))
ROLES = ["system", "developer", "user", "assistant", "tool"]

contents = st.sampled_from(["So it is.", "No.", "Why?", "", " \n", None])
weights = st.sampled_from([None, 0, 1])


def turns(*roles: str) -> st.SearchStrategy[tuple[Message, ...]]:
    """Return turns with these roles and any content, some of which call a tool that is not declared."""
    turn = {"weight": weights, "tool_calls": st.sampled_from([None, None, [{"function": {"name": "look"}}]])}
    return st.tuples(*(st.builds(Message, st.just(role), contents, **turn) for role in roles))


anything = st.lists(st.sampled_from(ROLES), max_size=3).flatmap(lambda roles: turns(*roles))
orders = [("user",), ("system", "user"), ("user", "user"), ("user", "assistant", "user"), ("user", "assistant")]
prompts = st.sampled_from(orders).flatmap(lambda roles: turns(*roles)) | anything
answers = turns("assistant") | turns("assistant") | anything
rows: dict[str, st.SearchStrategy[Any]] = {
    "preference": st.builds(Pair, prompts, answers, answers),
    "conversation": st.builds(Conversation, turns("user", "assistant") | anything),
}


@pytest.mark.parametrize("kind", ["preference", "conversation"])
@settings(unhurried, max_examples=200)
@given(st.data())
def test_what_passes_at_once_has_no_fault_and_nothing_odd(kind: str, data: st.DataObject) -> None:
    row = data.draw(rows[kind])
    if row.is_plain():
        assert row.check() == ()


@pytest.mark.parametrize("system", [(), (Message("system", "Be brief."),)])
def test_ordinary_pairs_pass_at_once(system: tuple[Message, ...]) -> None:
    earlier = (Message("user", "Is it?"), Message("assistant", "Yes."))
    pair = simple_pair(1)
    assert Pair(system + earlier + pair.prompt, pair.chosen, pair.rejected).is_plain()


def in_parts(row: Raw) -> Raw:
    [question] = row["input"]["messages"]
    return row | {"input": {"messages": [question | {"content": [{"type": "text", "text": question["content"]}]}]}}


def steps(format: Format) -> Steps:
    return Steps(format, Reader(format, format.to_row))


good = st.integers(0, 9).map(lambda number: foundry(simple_pair(number)))
whole = (good | good.map(in_parts)).map(lambda row: json.dumps(row).encode())
damaged = st.builds(
    lambda line, at, sign: line[: at % len(line)] + sign + line[at % len(line) + 1 :],
    whole,
    st.integers(0, 10_000),
    st.sampled_from([b"", b"}", b'"', b",", b"\xff", b"\\", b"1"]),
)


@unhurried
@given(st.lists(whole | damaged | st.sampled_from([b"", b" \r", b"[]", b"1"]), max_size=8))
def test_a_block_gives_the_same_whole_as_line_by_line(lines: list[bytes]) -> None:
    both = steps(named("foundry"))
    block = good_rows(FILE, Block(range(1, len(lines) + 1), lines), both)
    singles = [good_rows(FILE, Block([number], [line]), both) for number, line in enumerate(lines, 1)]
    assert list(block.lines) == list(chain.from_iterable(each.lines for each in singles))
    assert block.rows == list(chain.from_iterable(each.rows for each in singles))
    assert block.findings == list(chain.from_iterable(each.findings for each in singles))
