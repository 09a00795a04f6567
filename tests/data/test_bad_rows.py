"""A row that is no pair is named by file and line, with what it lacks."""

import json
from pathlib import Path

import pytest

from runner.errors import DataError
from tests.data.samples import look

GOOD = {
    "input": {"messages": [{"role": "user", "content": "Why?"}]},
    "preferred_output": [{"role": "assistant", "content": "Because."}],
    "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
}


def changed(**keys: object) -> str:
    return json.dumps(GOOD | keys)


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"says the {role}"} for role in roles]


BAD_ROWS = [
    ("{", "pairs.jsonl:2: "),
    ('{"input": 1', "pairs.jsonl:2: "),
    ("not json", "pairs.jsonl:2: "),
    ("[1, 2]", "pairs.jsonl:2: "),
    ('"text"', "pairs.jsonl:2: "),
    ("null", "pairs.jsonl:2: "),
    ('{"input": NaN}', "NaN"),
    (json.dumps({"input": GOOD["input"]}), "`preferred_output`"),
    (json.dumps({key: value for key, value in GOOD.items() if key != "input"}), "`input`"),
    (changed(input={"messages": []}), "prompt is empty"),
    (changed(input={}), "messages"),
    (changed(input={"messages": turns("user", "assistant")}), "the prompt ends with a turn of the assistant"),
    (changed(input={"messages": turns("assistant", "user")}), "assistant"),
    (changed(input={"messages": turns("user", "system", "user")}), "system"),
    (changed(input={"messages": [{"role": "human", "content": "Hi"}]}), "human"),
    (changed(input={"messages": [{"role": "user", "content": 5}]}), "content"),
    (changed(input={"messages": [{"role": "user"}]}), "prompt is empty"),
    (changed(input={"messages": [{"content": "Hi"}]}), "`role`"),
    (changed(input={"messages": "Hi"}), "messages"),
    (changed(preferred_output=[]), "chosen answer has no turn"),
    (changed(preferred_output=turns("user")), "the chosen answer has a turn of the user"),
    (changed(preferred_output=[{"role": "assistant", "content": ""}]), "chosen answer is empty"),
    (changed(preferred_output=[{"role": "assistant", "content": " \n\t "}]), "chosen answer is empty"),
    (changed(non_preferred_output=[{"role": "assistant", "content": ""}]), "rejected answer is empty"),
    (changed(non_preferred_output=GOOD["preferred_output"]), "are equal"),
    (changed(preferred_output=turns("assistant", "user")), "the chosen answer has a turn of the user"),
    (changed(preferred_output="Because."), "preferred_output"),
    (
        changed(preferred_output=[{"role": "assistant", "content": [{"type": "image_url"}]}]),
        "a turn of the assistant holds an image",
    ),
    (changed(preferred_output=[{"role": "assistant", "content": "x", "weight": 2}]), "weight"),
    (
        changed(preferred_output=[{"role": "assistant", "content": "x", "weight": 0}]),
        "every turn of the chosen answer has",
    ),
    (changed(input={"messages": turns("user"), "tools": 3}), "tools"),
]


@pytest.mark.parametrize(("line", "reported"), BAD_ROWS)
def test_a_bad_row_is_named_by_file_and_line(line: str, reported: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n", "utf-8")
    with pytest.raises(DataError) as caught:
        look(path).require_trainable("stop")
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ")
    assert reported in message
    assert "dataset.on_bad_row=skip" in message
    assert len(message.splitlines()) == 1
