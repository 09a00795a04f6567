"""Rows of any shape that people have are read as problems: a prompt, and fields for a grader."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner.data.problems import problem_of, read
from runner.data.rows import BadRow, Message
from runner.errors import DataError

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
        ("[1]", "the row is not an object"),
        ('{"messages": ', "the JSON ends too early"),
    ],
)
def test_a_row_that_asks_nothing_is_refused_by_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"messages": [USER]}) + "\n\n" + line + "\n", "utf-8")
    with pytest.raises(DataError) as caught:
        list(read(str(path)))
    assert str(caught.value).startswith(f"{path}:3: {message}")
