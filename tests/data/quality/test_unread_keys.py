"""A key that no format reads is refused where rows mean something else without it, and otherwise named in a warning."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.formats import named
from runner.data.kinds.conversation import Conversation
from runner.data.quality.unread_keys import MAX_NAMED
from runner.data.reading.unknown_keys import fit
from runner.data.rows import canonical
from runner.data.survey import Survey
from tests.data.samples import Raw, look, reported, rows_of, simple_pair, trl, unhurried, write_csv, write_lines

TURNS = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Gas."}]
SHAREGPT = {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Gas."}]}
ALPACA = {"instruction": "Why?", "output": "Gas."}


def found_in(folder: Path, *rows: Raw, kind: str = "conversation") -> Survey:
    write_lines(folder / "data.jsonl", rows)
    return look(folder / "data.jsonl", kind)


def messages(folder: Path, *rows: Raw, kind: str = "conversation") -> list[str]:
    found = found_in(folder, *rows, kind=kind)
    return [each for each in reported(found, folder) if "duplicate-row" not in each]


UNPAIRED = (
    "from which method=kto learns; method=sft would learn the bad answers, too, and other methods would not read the "
    "judgement; use method=kto, or keep the rows with good answers and leave the key out"
)


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"messages": TURNS, "label": True}, "`label` (True)"),
        ({"messages": TURNS, "label": False}, "`label` (False)"),
        ({"messages": TURNS, "label": 0}, "`label` (0)"),
        ({"messages": TURNS, "label": 1.0}, "`label` (1.0)"),
        ({"messages": TURNS, "label": "undesirable"}, "`label` (undesirable)"),
        ({"prompt": "Why?", "completion": "Gas.", "label": True}, "`label` (True)"),
        (ALPACA | {"kto_tag": False}, "`kto_tag` (False)"),
        (SHAREGPT | {"kto_tag": True}, "`kto_tag` (True)"),
    ],
)
def test_unpaired_judgements_are_refused(tmp_path: Path, row: Raw, key: str) -> None:
    assert messages(tmp_path, row) == [
        f"error unpaired-judgement data.jsonl:1: the key {key} judges the answer: these are unpaired judgements, "
        f"{UNPAIRED}"
    ]


def test_unpaired_judgements_in_a_table_are_refused(tmp_path: Path) -> None:
    write_csv(path := tmp_path / "data.csv", [{"prompt": "Why?", "completion": "Gas.", "label": "True"}])
    assert look(path, "conversation").refused == 1


def test_a_label_that_judges_nothing_is_ignored_with_a_warning(tmp_path: Path) -> None:
    assert messages(tmp_path, {"messages": TURNS, "label": "chemistry"}) == [
        "warning ignored-key label data.jsonl:1: the key `label` is ignored; format chat reads messages, tools, "
        "parallel_tool_calls; remove it, or rename it if it is one of these"
    ]


MEDIA = "holds what is not text; only text is learned; leave the row or the key out"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": TURNS, "videos": ["a.mp4"]}, f"not-text data.jsonl:1: the key `videos` {MEDIA}"),
        ({"messages": TURNS, "audio": "a.wav"}, f"not-text data.jsonl:1: the key `audio` {MEDIA}"),
        (
            {"messages": [TURNS[0] | {"images": ["a.png"]}, TURNS[1]]},
            f"not-text data.jsonl:1: the key `images` of `messages[0]` {MEDIA}",
        ),
        (
            {"messages": TURNS, "functions": [{"name": "add"}]},
            "older-tools data.jsonl:1: the key `functions` is the older way to write `tools`, which is read; "
            "write it as `tools`, or leave the row out",
        ),
        (
            {"messages": [TURNS[0], TURNS[1] | {"function_call": {"name": "add", "arguments": "{}"}}]},
            "older-tools data.jsonl:1: the key `function_call` of `messages[1]` is the older way to write "
            "`tool_calls`, which is read; write it as `tool_calls`, or leave the row out",
        ),
        (
            ALPACA | {"tools": [{"name": "add"}]},
            "unread-tools data.jsonl:1: the key `tools` is not read in format alpaca; give the rows in format chat or "
            "trl, or leave the key out",
        ),
    ],
)
def test_a_key_without_which_the_row_means_something_else_is_refused(tmp_path: Path, row: Raw, message: str) -> None:
    assert messages(tmp_path, row) == [f"error {message}"]


@pytest.mark.parametrize("nothing", [None, "", [], {}])
def test_a_key_that_holds_nothing_is_passed_over(tmp_path: Path, nothing: Any) -> None:
    turn = TURNS[1] | dict.fromkeys(["function_call", "audio", "annotations", "refusal"], nothing)
    row = {"messages": [TURNS[0], turn]} | dict.fromkeys(["images", "label", "functions", "score"], nothing)
    assert messages(tmp_path, row) == []
    assert messages(tmp_path, {"messages": TURNS, "score": nothing}) == []


@pytest.mark.parametrize(
    ("row", "rule", "message"),
    [
        (
            {"messages": TURNS, "rejected_response": "No."},
            "rejected_response",
            "the key `rejected_response` is ignored; format chat reads messages, tools, parallel_tool_calls; ",
        ),
        (
            {"messages": [TURNS[0], TURNS[1] | {"reasoning_content": "Hm."}]},
            "reasoning_content inside",
            "the key `reasoning_content` of `messages[1]` is ignored, as format chat does not read it; ",
        ),
        (
            {"conversations": [SHAREGPT["conversations"][0] | {"weight": 0}, SHAREGPT["conversations"][1]]},
            "weight inside",
            "the key `weight` of `conversations[0]` is ignored, as format sharegpt does not read it; ",
        ),
        (
            {"prompt": "Why?", "completion": "Gas.", "system_prompt": "Be brief."},
            "system_prompt",
            "the key `system_prompt` is ignored; format trl_completion reads prompt, completion, tools; ",
        ),
    ],
)
def test_any_other_key_is_named_in_a_warning(tmp_path: Path, row: Raw, rule: str, message: str) -> None:
    [warning] = messages(tmp_path, row)
    assert warning.startswith(f"warning ignored-key {rule} data.jsonl:1: {message}")


def test_a_warning_counts_the_rows_that_have_the_key(tmp_path: Path) -> None:
    rows = [trl(simple_pair(number)) | ({"score": 1.5} if number % 3 == 0 else {}) for number in range(3000)]
    [group] = found_in(tmp_path, *rows, kind="preference").findings
    assert (group.rule, group.count, group.examples[0].line) == ("ignored-key score", 1000, 1)


def test_a_key_of_several_turns_counts_once_a_row(tmp_path: Path) -> None:
    turns = [each | {"id": 1} for each in TURNS]
    [group] = [each for each in found_in(tmp_path, *[{"messages": turns}] * 4).findings if "ignored" in each.rule]
    assert (group.rule, group.count) == ("ignored-key id inside", 4)


def test_the_key_of_one_row_among_many_is_named(tmp_path: Path) -> None:
    rows = [trl(simple_pair(number)) for number in range(3000)]
    rows[2900]["note"] = "x"
    assert [each.split(" is ignored")[0] for each in messages(tmp_path, *rows, kind="preference")] == [
        "warning ignored-key note data.jsonl:2901: the key `note`"
    ]


def test_keys_that_are_not_read_do_not_change_the_rows(tmp_path: Path) -> None:
    plain = found_in(tmp_path, *[{"messages": TURNS}] * 2).splits
    turns = [TURNS[0], TURNS[1] | {"thinking": "Hm."}]
    assert found_in(tmp_path, {"messages": TURNS, "id": 3}, {"messages": turns}).splits == plain
    assert all(type(row) is Conversation for row in rows_of(tmp_path / "data.jsonl", "conversation"))


def test_keys_that_are_data_do_not_fill_the_report(tmp_path: Path) -> None:
    found = found_in(tmp_path, *[{"messages": TURNS, f"key {number}": 1} for number in range(300)])
    groups = [group for group in found.findings if group.rule.startswith("ignored-key")]
    assert len(groups) == MAX_NAMED + 1
    assert sum(group.count for group in groups) == 300


@pytest.mark.parametrize("key", ["a\nb", "`", "é\u2028", "k" * 1000, "messages[0]", "$"])
def test_a_key_of_any_characters_is_named_on_one_line(tmp_path: Path, key: str) -> None:
    for row in ({"messages": TURNS, key: 1}, {"messages": [TURNS[0] | {key: 1}, TURNS[1]]}):
        found = messages(tmp_path, row)
        assert len(found) == 1
        assert found[0].startswith("warning ignored-key")
        assert all(len(each) < 1600 and each.isprintable() for each in found[0].split(": ", 1)[1:])


def test_rows_for_a_grader_are_called_what_they_are(tmp_path: Path) -> None:
    assert messages(tmp_path, {"messages": TURNS[:1], "reference_answer": "Gas."}) == [
        "error last-turn data.jsonl:1: the last turn is the user's; it must be the assistant's; add the answer; "
        "if a grader compares answers with `reference_answer`, this is data for reinforcement fine-tuning: use "
        "method=rft"
    ]


json_values = st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2)
keys = st.text(max_size=6).filter(lambda key: key not in {"role", "content", "name", "weight", "messages", "tools"})
extras = st.dictionaries(keys, json_values, max_size=3)


@unhurried
@given(extras, extras, extras)
def test_what_is_taken_out_is_all_that_is_not_known(above: Raw, first: Raw, second: Raw) -> None:
    raw = {"messages": [TURNS[0] | first, TURNS[1] | second]} | above
    row, unread = fit(raw, named("chat").raw)
    assert canonical(row) == json.dumps({"messages": TURNS}, separators=(",", ":")).encode()
    kept = [value for each in (above, first, second) for value in each.values() if value not in (None, "", [])]
    assert sorted(map(repr, kept)) == sorted(repr(each.value) for each in unread)
