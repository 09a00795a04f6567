"""A plan names by file and line what a model would learn wrongly of a row."""

import json
from pathlib import Path

import pytest

from runner.data.json_value import Json
from runner.data.kinds.conversation import Conversation
from runner.data.rows import Message, canonical
from runner.data.splits import Selection
from runner.data.survey import survey
from runner.errors import DataError
from runner.models.chat import learned_check
from runner.models.chat.learned_check import LearnedCheck
from runner.models.chat.tokenizer import ChatTokenizer
from runner.models.limit import limit_of
from tests.models.chat.tool_rows import TEMPLATES, tokenizer_folder

GOOD: Json = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
CALL: Json = {"type": "function", "function": {"name": "now", "arguments": "{}"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("model"), "hermes", marks=False)


def found(folder: Path, tmp_path: Path, *rows: Json, template: str | None = None) -> list[str]:
    """Return what a plan finds in rows for a model, with another template where one is given."""
    model = tmp_path / "model"
    model.mkdir()
    for path in folder.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    (model / "config.json").write_text("{}", "utf-8")  # which makes a folder that of a model
    if template is not None:
        (model / "chat_template.jinja").write_text(template, "utf-8")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    surveyed = survey(
        Selection(train=str(tmp_path / "rows.jsonl"), kind="conversation"), limit_of(f"path:{model}", 4000)
    )
    return [str(each).removeprefix(f"{tmp_path}/") for group in surveyed.findings for each in group.examples]


def hermes(old: str, new: str) -> str:
    source = (TEMPLATES / "hermes.jinja").read_text("utf-8")
    assert old in source
    return source.replace(old, new)


def test_a_row_that_is_learned_as_it_should_be_is_not_mentioned(folder: Path, tmp_path: Path) -> None:
    assert found(folder, tmp_path, GOOD) == []


def test_an_end_that_is_not_learned_is_named(folder: Path, tmp_path: Path) -> None:
    endless = hermes("{{- '<|im_end|>\\n' }}\n        {%- endgeneration %}", "{%- endgeneration %}")
    [said] = found(folder, tmp_path, GOOD, template=endless)
    assert said.startswith("rows.jsonl:1: a turn of the assistant is learned without its end, <|im_end|>, so that")


def test_a_template_that_writes_nothing_of_the_answer_is_refused(folder: Path, tmp_path: Path) -> None:
    silent = "{% for turn in messages if turn.role == 'user' %}{{ turn.content }}{% endfor %}"
    with pytest.raises(DataError, match=r"/rows\.jsonl:1: nothing of an answer is learned: .* writes no word of it"):
        found(folder, tmp_path, GOOD, template=silent)


def test_a_prompt_that_is_written_otherwise_once_an_answer_follows_is_named(folder: Path, tmp_path: Path) -> None:
    template = "{% for turn in messages %}{{ messages | length }}: {{ turn.content }}<|im_end|>{% endfor %}"
    [said] = found(folder, tmp_path, GOOD, template=template)
    assert said.startswith("rows.jsonl:1: the chat template writes the prompt otherwise once an answer follows, from ")


def test_words_that_the_template_leaves_out_are_named(folder: Path, tmp_path: Path) -> None:
    calls_alone = hermes("{{- turn.content or '' }}", "{{- turn.content or '' if not turn.tool_calls }}")
    turns: list[Json] = [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
    ]
    tools: Json = [{"type": "function", "function": {"name": "now"}}]
    [said] = found(folder, tmp_path, GOOD, {"messages": turns, "tools": tools}, template=calls_alone)
    assert said.startswith("rows.jsonl:2: the chat template leaves out what the assistant says, 'Let me see.'; ")


def test_a_template_that_rewrites_earlier_turns_without_marks_is_refused(folder: Path, tmp_path: Path) -> None:
    rewriting = "{% for turn in messages %}{{ turn.content if loop.last else '-' }}<|im_end|>{% endfor %}"
    long: Json = {"messages": [*GOOD["messages"], *GOOD["messages"]]}  # type: ignore[call-overload,index,list-item]
    with pytest.raises(
        DataError, match=r"/rows\.jsonl:2: model: the chat template rewrites earlier turns, so the assistant's turn 2"
    ):
        found(folder, tmp_path, GOOD, long, template=rewriting)


def test_arguments_that_are_spoilt_are_refused_in_any_row(folder: Path, tmp_path: Path) -> None:
    spoilt = {"type": "function", "function": {"name": "now", "arguments": "{"}}
    rows: list[Json] = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}]}
        for call in [*[CALL] * 400, spoilt]
    ]
    with pytest.raises(
        DataError, match=r"/rows\.jsonl:401: the arguments of the call now in turn 2 are '{'; they must"
    ):
        found(folder, tmp_path, *rows)


def test_two_templates_that_differ_are_named_by_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    for path in folder.iterdir():
        (tmp_path / "both" / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "both" / "tokenizer_config.json"
    other = (folder / "chat_template.jinja").read_text("utf-8").replace("# Tools", "# TOOLS")
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"chat_template": other}), "utf-8")
    [said] = found(tmp_path / "both", tmp_path, GOOD)
    assert said.startswith("model/chat_template.jinja:5: the model has two chat templates, which differ from here on;")


def test_of_many_rows_of_one_shape_the_first_are_looked_at_and_of_each_new_shape_some(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned_check, "FIRST_ROWS", 3)
    monkeypatch.setattr(learned_check, "SHAPE_ROWS", 2)
    check = LearnedCheck(ChatTokenizer(folder), 4000)
    short = Conversation((Message("user", "Hi"), Message("assistant", "Hello.")))
    long = Conversation((*short.messages, *short.messages))
    with_tools = Conversation(short.messages, [{"type": "function", "function": {"name": "now"}}])
    lines = list(map(canonical, [*[short] * 5, *[long] * 3, with_tools, with_tools]))
    assert check.chosen(lines) == [0, 1, 2, 5, 6, 8, 9]
    assert check.chosen(lines) == [8, 9], "block by block"
