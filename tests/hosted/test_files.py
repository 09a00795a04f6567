"""A split's bytes are what the service's shape says, and the same for the same rows, wherever they came from."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("openai")

from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.rows import Message, Row
from runner.hosted.files import Content, encode, write
from tests.data.samples import (
    CONTAINERS,
    SHAPES,
    TEXT_SHAPES,
    assistant,
    rows_of,
    simple_pair,
    unhurried,
    user,
    write_csv,
)
from tests.emulator.rows import look_into

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
]
CALLS: list[dict[str, Any]] = [{"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
PAIR = Pair((Message("system", "Be brief."), user("Why?")), (assistant("Gas."),), (assistant("No idea."),))
CALLING = (user("What time is it?"), Message("assistant", tool_calls=CALLS), Message("tool", "12", tool_call_id="1"))

GOLDEN: dict[str, tuple[Row, str]] = {
    "a pair": (
        PAIR,
        '{"input":{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Why?"}]},'
        '"preferred_output":[{"role":"assistant","content":"Gas."}],'
        '"non_preferred_output":[{"role":"assistant","content":"No idea."}]}',
    ),
    "a pair with tools": (
        Pair(CALLING, (assistant("Noon."),), (assistant("Late."),), TOOLS, False),
        '{"input":{"messages":[{"role":"user","content":"What time is it?"},'
        '{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"now","arguments":"{}"}}]},'
        '{"role":"tool","content":"12","tool_call_id":"1"}],'
        '"tools":[{"type":"function","function":{"name":"now","parameters":{"type":"object","properties":{}}}}],'
        '"parallel_tool_calls":false},'
        '"preferred_output":[{"role":"assistant","content":"Noon."}],'
        '"non_preferred_output":[{"role":"assistant","content":"Late."}]}',
    ),
    "a conversation": (
        Conversation((user("Why?"), Message("assistant", "Gas.", weight=0), user("Sure?"), assistant("Yes."))),
        '{"messages":[{"role":"user","content":"Why?"},{"role":"assistant","content":"Gas.","weight":0},'
        '{"role":"user","content":"Sure?"},{"role":"assistant","content":"Yes."}]}',
    ),
    "other letters": (
        Conversation((user("Wozu\u2028„ö“ 🙂\n\t\\?"), assistant("\u0000"))),
        '{"messages":[{"role":"user","content":"Wozu\u2028„ö“ 🙂\\n\\t\\\\?"},'
        '{"role":"assistant","content":"\\u0000"}]}',
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_a_row_has_the_services_shape_without_absent_fields(case: str) -> None:
    row, line = GOLDEN[case]
    assert encode(row).decode() == line


def test_a_content_is_known_by_its_bytes(tmp_path: Path) -> None:
    rows = [simple_pair(number) for number in range(20)]
    content = write(rows, tmp_path / "train.jsonl")
    found = (tmp_path / "train.jsonl").read_bytes()
    assert found == b"".join(encode(row) + b"\n" for row in rows)
    assert content == Content(tmp_path / "train.jsonl", sha256(found).hexdigest(), len(found))
    assert content.name == f"runner-{sha256(found).hexdigest()[:40]}.jsonl"
    assert write(rows[::-1], tmp_path / "reversed.jsonl").sha256 != content.sha256


def test_no_rows_are_no_bytes(tmp_path: Path) -> None:
    content = write(iter(()), tmp_path / "validation.jsonl")
    assert (content.bytes, (tmp_path / "validation.jsonl").read_bytes()) == (0, b"")


def test_what_is_written_replaces_what_an_earlier_process_left(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"half a line of the same split" * 100)
    assert write([PAIR], path).bytes == path.stat().st_size == len(encode(PAIR)) + 1


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
TURNS = TEXTS.map(user), TEXTS.map(assistant)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    before = draw(st.lists(st.tuples(*TURNS), max_size=2))
    prompt = (*(turn for both in before for turn in both), draw(TURNS[0]))
    good, bad = draw(st.lists(TEXTS, min_size=2, max_size=2, unique=True))
    return Pair(prompt, (assistant(good),), (assistant(bad),))


@unhurried
@given(st.lists(pairs(), min_size=1, max_size=5))
def test_the_service_reads_what_was_written_and_so_do_we(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    path = tmp_path_factory.mktemp("written") / "train.jsonl"
    write(rows, path)
    assert look_into(path.read_bytes()) == ("dpo", len(rows))
    assert [json.loads(line)["preferred_output"][0]["content"] for line in path.read_bytes().split(b"\n")[:-1]] == [
        row.chosen[0].content for row in rows
    ]
    assert rows_of(path) == rows


@unhurried
@given(st.lists(pairs().map(Conversation.of), min_size=1, max_size=5))
def test_the_service_reads_the_conversations_that_were_written_and_so_do_we(
    tmp_path_factory: pytest.TempPathFactory, rows: Any
) -> None:
    path = tmp_path_factory.mktemp("written") / "train.jsonl"
    write(rows, path)
    assert look_into(path.read_bytes()) == ("chat", len(rows))
    assert rows_of(path, "conversation") == rows


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_rows_in_another_format_are_the_same_content(shape: str, container: str, tmp_path: Path) -> None:
    rows = [simple_pair(number) for number in range(12)]
    path = tmp_path / f"pairs.{container}"
    CONTAINERS[container](path, [SHAPES[shape](row) for row in rows])
    assert write(rows_of(path), tmp_path / "sent").sha256 == write(rows, tmp_path / "expected").sha256


@pytest.mark.parametrize("shape", TEXT_SHAPES)
def test_the_same_rows_as_csv_are_the_same_content(shape: str, tmp_path: Path) -> None:
    rows = [simple_pair(number) for number in range(12)]
    write_csv(tmp_path / "pairs.csv", [TEXT_SHAPES[shape](row) for row in rows])
    assert write(rows_of(tmp_path / "pairs.csv"), tmp_path / "sent").sha256 == write(rows, tmp_path / "other").sha256


def test_keys_within_tools_keep_their_order_as_the_model_reads_them_in_it() -> None:
    one, other = (Pair(PAIR.prompt, PAIR.chosen, PAIR.rejected, tools) for tools in (TOOLS, [reversed_keys(TOOLS[0])]))
    assert encode(one) != encode(other)
    assert json.loads(encode(one)) == json.loads(encode(other))


def reversed_keys(value: dict[str, Any]) -> dict[str, Any]:
    return {key: reversed_keys(item) if isinstance(item, dict) else item for key, item in reversed(value.items())}
