"""Rows of any shape that people have are read as problems: a prompt, and fields for a grader."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner.data.problems import problem_of, read
from runner.data.row_store import RowStore, write_rows
from runner.data.rows import BadRow, Message, Row, canonical_lines
from runner.data.splits import Selection, read_rows
from runner.data.survey import Survey, survey
from runner.errors import DataError
from runner.hosted.files import encode

ASKED = (Message("user", "2 + 2?"),)
USER = {"role": "user", "content": "2 + 2?"}
ANSWER = {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"messages": [USER], "answer": "4", "level": 3}, {"answer": "4", "level": 3}),
        ({"messages": [USER, ANSWER]}, {"reference": "4"}),
        ({"messages": [USER, ANSWER], "reference": "four"}, {"reference": "four"}),
        ({"messages": [{**USER, "name": None, "content": [{"type": "text", "text": "2 + 2?"}]}]}, {}),
        ({"prompt": "2 + 2?", "answer": "4"}, {"answer": "4", "reference": "4"}),
        ({"prompt": [USER], "target": 4}, {"target": 4}),
        ({"question": "2 + 2?", "answer": "so it is\n#### 4"}, {"answer": "so it is\n#### 4",
                                                                "reference": "so it is\n#### 4"}),
        ({"question": "2 + 2?", "answer": "4", "metadata": {"a": 1}}, {"answer": "4", "metadata": {"a": 1},
                                                                       "reference": "4"}),
        ({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}, {"reference": "4", "chosen": "4", "rejected": "5"}),
        ({"prompt": "2 + 2?", "completion": "4", "topic": "sums"}, {"topic": "sums", "reference": "4"}),
        ({"instruction": "2 + 2?", "output": "4"}, {"reference": "4"}),
    ],
)  # fmt: skip
def test_a_row_is_a_prompt_and_its_other_keys(row: dict[str, Any], fields: dict[str, Any]) -> None:
    problem = problem_of(row)
    assert problem.prompt == ASKED
    assert problem.reference == fields


def test_tools_are_carried_to_the_grader() -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]
    assert problem_of({"messages": [USER], "tools": tools}).tools == tools


def test_tools_that_a_format_has_as_text_are_a_list() -> None:
    turns = [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]
    row = {"conversations": turns, "tools": '[{"type": "function", "function": {"name": "add"}}]'}
    assert problem_of(row).tools == [{"type": "function", "function": {"name": "add"}}]


def test_tools_that_are_no_list_of_objects_are_refused() -> None:
    with pytest.raises(BadRow, match="`tools` are no list of objects"):
        problem_of({"messages": [USER], "tools": "add"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"text": "2 + 2?"}',
            "the row has no prompt; it needs `messages`, or one of prompt, question, problem",
        ),
        ('{"messages": []}', "the prompt is empty; an answer must reply to something; add it"),
        ('{"messages": [{"role": "system", "content": "Be brief."}]}', "there are only system turns"),
        ('{"messages": "2 + 2?"}', "its turns cannot be read"),
        ("[1]", "the row is a list; allowed: an object"),
        ('{"messages": ', "the JSON ends too early"),
    ],
)
def test_a_row_that_asks_nothing_is_refused_by_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"messages": [USER]}) + "\n\n" + line + "\n", "utf-8")
    with pytest.raises(DataError) as caught:
        list(read(str(path)))
    assert str(caught.value).startswith(f"{path}:3: {message}")


SHAPES: dict[str, dict[str, Any]] = {
    "messages": {"messages": [USER], "answer": "4", "reference": "4"},
    "prompt": {"prompt": "2 + 2?", "answer": "4"},
    "gsm8k and reasoning-gym": {"question": "2 + 2?", "answer": "4"},
    "pair": {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    "conversation": {"messages": [USER, ANSWER]},
}


def selected(folder: Path, *content: object, **more: Any) -> Selection:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")
    return Selection(train=str(folder / "rows.jsonl"), kind="problem", **more)


def surveyed(folder: Path, *content: object, **more: Any) -> tuple[Survey, list[Row]]:
    selection = selected(folder, *content, **more)
    return survey(selection), list(read_rows(selection, "train"))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_training_file_of_any_shape_is_one_of_problems(shape: str, tmp_path: Path) -> None:
    found, [row] = surveyed(tmp_path, SHAPES[shape])
    assert found.findings == ()
    assert found.splits["train"].rows == 1
    assert row.question == ASKED
    assert row.fields()["reference"] == "4"


def test_the_same_problem_has_the_same_fingerprint_in_whatever_shape_it_came(tmp_path: Path) -> None:
    prints = {
        surveyed(tmp_path, SHAPES[each])[0].splits["train"].fingerprint
        for each in ("messages", "prompt", "gsm8k and reasoning-gym")
    }
    assert len(prints) == 1


def test_on_the_wire_a_problem_is_its_messages_and_the_other_keys_next_to_them(tmp_path: Path) -> None:
    _, [row] = surveyed(tmp_path, {"question": "2 + 2?", "answer": "4", "metadata": {"b": [1.5, None], "a": True}})
    assert json.loads(encode(row)) == {
        "messages": [USER], "answer": "4", "reference": "4", "metadata": {"b": [1.5, None], "a": True},
    }  # fmt: skip
    given = {"messages": [USER], "tools": [{"type": "function"}], "parallel_tool_calls": False, "n": 1}
    assert json.loads(encode(surveyed(tmp_path, given)[1][0])) == given


def test_bad_rows_of_a_training_file_are_found_by_line_and_the_others_kept(tmp_path: Path) -> None:
    content = ({"prompt": "1?"}, {"text": "2?"}, {"prompt": ""}, {"prompt": "3?"})
    found, rows = surveyed(tmp_path, *content)
    assert len(rows) == 2
    assert [(each.line, each.rule) for each in found.errors] == [(2, "no-prompt"), (3, "no-prompt")]
    with pytest.raises(DataError, match=r"(?s)rows\.jsonl:2: the row has no prompt.*2 of 4 rows cannot be"):
        found.require_trainable("stop")


def test_problems_with_one_prompt_are_never_divided_between_the_splits(tmp_path: Path) -> None:
    content = [{"prompt": f"{number % 20}?", "answer": str(number)} for number in range(200)]
    found, rows = surveyed(tmp_path, *content, validation_fraction=0.5)
    assert found.splits["train"].rows + found.splits["validation"].rows == 200
    held_out = read_rows(selected(tmp_path, *content, validation_fraction=0.5), "validation")
    assert not {row.question for row in rows} & {row.question for row in held_out}


def test_problems_come_out_of_the_row_store_as_they_went_in(tmp_path: Path) -> None:
    _, rows = surveyed(tmp_path, SHAPES["prompt"], {"prompt": "3?", "metadata": {"x": [1, None]}})
    write_rows(tmp_path, [(rows, canonical_lines(rows))])
    assert list(RowStore(tmp_path, "problem")) == rows


def test_a_format_that_is_named_is_read_as_that_format(tmp_path: Path) -> None:
    found, rows = surveyed(tmp_path, {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "level": 3}, format="trl")
    assert rows[0].fields() == {"reference": "4", "chosen": "4", "rejected": "5"}
    assert [group.rule for group in found.findings] == ["ignored-key level"]
