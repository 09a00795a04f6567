"""Tools in chat templates: the ids are those of transformers, what is learned is what TRL learns."""

import json
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest

from runner.data.json_value import Json
from runner.data.kinds.conversation import Conversation
from runner.data.kinds.judged import Judged
from runner.data.kinds.preference import Pair
from runner.data.rows import Message, Prompt, Row
from runner.errors import DataError
from runner.models.chat.row_tokens import TokenRow
from runner.models.chat.shown_row import shown_row
from runner.models.chat.tokenizer import ChatTokenizer
from tests import tiny
from tests.models.chat.tool_rows import ENDS, conversations, parsed, tokenizer_folder

ROWS = [50, pytest.param(200, marks=pytest.mark.exhaustive)]
"""How many generated rows; those of the fewer are the first of the more."""
REWRITING = ("mistral",)
"""Templates that write earlier turns otherwise once others follow: their turns are found by their marks alone."""


@pytest.fixture(scope="module", params=sorted(ENDS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def marked(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("marked") / name, name)


@pytest.fixture(scope="module")
def plain(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("plain") / name, name, marks=False)


Masked = tuple[list[int], list[int]]
"""A row's ids, and of each 1 if it is learned, else 0."""


def ours(folder: Path, rows: Sequence[Row]) -> list[Masked]:
    return [
        (row.prompt + row.answers[0], [0] * len(row.prompt) + list(map(int, row.learned[0])))
        for row in ChatTokenizer(folder).rows(rows)
    ]


def trls(folder: Path, rows: Sequence[Conversation]) -> list[Masked]:
    """Return the same as TRL makes it; it knows no weights."""
    from transformers import PreTrainedTokenizerFast
    from trl.data_utils import _tokenize

    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    found = [_tokenize(theirs, parsed(row), tools=row.tools, return_assistant_tokens_mask=True) for row in rows]
    return [(each["input_ids"], each["assistant_masks"]) for each in found]


def without_skipped(ids_and_mask: Masked, row: Conversation) -> Masked:
    """Return a row with all turns of weight 0 taken out of its mask."""
    ids, mask = ids_and_mask
    weights = iter([turn.weight for turn in row.messages if turn.role == "assistant"])
    kept: list[int] = []
    for learned, stretch in groupby(mask):
        size = len(list(stretch))
        kept += [learned and int(next(weights) != 0)] * size
    return ids, kept


@pytest.mark.parametrize("count", ROWS)
def test_rows_with_tools_have_the_ids_of_transformers_and_the_masks_of_trl_but_for_weights_of_zero(
    name: str, count: int, marked: Path, plain: Path
) -> None:
    rows = list(conversations(1, count, name))
    expected = [without_skipped(each, row) for each, row in zip(trls(marked, rows), rows, strict=True)]
    assert any(0 in row[1] for row in expected)
    assert ours(marked, rows) == expected
    if name not in REWRITING:
        assert ours(plain, rows) == expected


@pytest.mark.parametrize("name", REWRITING, indirect=True)
def test_a_template_that_rewrites_earlier_turns_needs_marks(plain: Path) -> None:
    [row] = [row for row in conversations(1, 50, "mistral") if len([t for t in row.messages if t.role == "user"]) > 1][
        :1
    ]
    with pytest.raises(DataError, match=r"cannot be located; .* a template that marks them with \{% generation %\}"):
        ChatTokenizer(plain).row(row)


def test_a_prompt_with_tools_has_the_ids_of_transformers(name: str, plain: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs, tokenizer = PreTrainedTokenizerFast.from_pretrained(plain), ChatTokenizer(plain)
    for row in conversations(2, 20, name):
        expected = theirs.apply_chat_template(
            parsed(row)[:-1], tools=row.tools, add_generation_prompt=True, return_dict=False
        )
        assert tokenizer.encode_prompt(Prompt(row.question, row.tools)) == expected


CALL: dict[str, Json] = {"id": "callab123", "type": "function", "function": {"name": "now", "arguments": "{}"}}
TOOL: dict[str, Json] = {"type": "function", "function": {"name": "now", "description": "Returns the time."}}
PROMPT = (Message("user", "What time is it?"),)
CALLED = (Message("assistant", tool_calls=[CALL]), Message("tool", "12:00", tool_call_id="callab123"))


def test_an_answer_of_several_turns_is_learned_without_what_tools_say_in_it(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer(tokenizer_folder(tmp_path, "hermes", marks=False))
    pair = Pair(PROMPT, (*CALLED, Message("assistant", "Noon.")), (Message("assistant", "Who knows."),), [TOOL])
    row = tokenizer.row(pair)
    assert [learned_text(tokenizer, row, each) for each in (0, 1)] == [
        '\n{"name": "now", "arguments": {}}\n\nNoon.\n',
        "Who knows.\n",
    ]


NOON, MIDNIGHT = Message("assistant", "Noon."), Message("assistant", "Midnight.")
LEFT_OUT = Message("assistant", "Let me look. ", weight=0, tool_calls=[CALL])
OTHER_LEFT_OUT = Message("assistant", "One moment. ", weight=0, tool_calls=[CALL])


@pytest.mark.parametrize(
    ("chosen", "rejected", "learned"),
    [
        ((LEFT_OUT, CALLED[1], NOON), (LEFT_OUT, CALLED[1], MIDNIGHT), ["Noon.\n", "Midnight.\n"]),
        ((LEFT_OUT, CALLED[1], NOON), (OTHER_LEFT_OUT, CALLED[1], MIDNIGHT), ["Noon.\n", "Midnight.\n"]),
        ((LEFT_OUT, CALLED[1], NOON), (MIDNIGHT,), ["Noon.\n", "Midnight.\n"]),
        ((MIDNIGHT,), (LEFT_OUT, CALLED[1], NOON), ["Midnight.\n", "Noon.\n"]),
        ((*CALLED, LEFT_OUT, CALLED[1], NOON), (NOON,),
         ['\n{"name": "now", "arguments": {}}\n\nNoon.\n', "Noon.\n"]),
    ],
)  # fmt: skip
def test_turns_of_an_answer_with_weight_0_are_read_and_not_learned(
    chosen: tuple[Message, ...], rejected: tuple[Message, ...], learned: list[str], tmp_path: Path
) -> None:
    tokenizer = ChatTokenizer(tokenizer_folder(tmp_path, "hermes", marks=False))
    row = tokenizer.row(pair := Pair(PROMPT, chosen, rejected, [TOOL]))
    assert [learned_text(tokenizer, row, each) for each in (0, 1)] == learned
    for answer, whole in zip(row.answers, pair.learned(), strict=True):
        assert row.prompt + answer == tokenizer.encode(tokenizer.render(whole.messages, tools=pair.tools))
    [judged] = [tokenizer.row(Judged(PROMPT, chosen, good=True, tools=[TOOL]))]
    assert learned_text(tokenizer, judged, 0) == learned[0]


def learned_text(tokenizer: ChatTokenizer, row: TokenRow, number: int) -> str:
    answer = zip(row.answers[number], row.learned[number], strict=True)
    return tokenizer.decode([token for token, learned in answer if learned])


def folder_with(template: str, folder: Path) -> Path:
    tiny.make_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder


TEXT_ONLY = (
    "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}"
    "{% for call in turn.tool_calls or [] %}{{ call.function.name + call.function.arguments }}{% endfor %};{% endfor %}"
)


@pytest.mark.parametrize("arguments", ['{"zone": "é"}', {"zone": "é"}])
def test_a_template_that_wants_arguments_as_json_gets_them_so(arguments: Json, tmp_path: Path) -> None:
    call: dict[str, Json] = {"type": "function", "function": {"name": "now", "arguments": arguments}}
    text = ChatTokenizer(folder_with(TEXT_ONLY, tmp_path)).render(
        [*PROMPT, Message("assistant", "", tool_calls=[call])]
    )
    assert text == 'user: What time is it?;assistant: now{"zone": "é"};'


@pytest.mark.parametrize(
    ("row", "lacks"),
    [
        (Conversation((*PROMPT, Message("assistant", "Noon.")), [TOOL]), "the tools that rows declare"),
        (
            Conversation((*PROMPT, *CALLED, Message("assistant", "Noon."))),
            "the assistant's calls and what tools answer",
        ),
    ],
)
def test_a_template_that_cannot_say_tools_is_refused_by_name(row: Conversation, lacks: str, tmp_path: Path) -> None:
    folder = folder_with("{% for turn in messages if turn.role != 'tool' %}{{ turn.content }}{% endfor %}", tmp_path)
    with pytest.raises(DataError) as caught:
        ChatTokenizer(folder).render(row.messages, tools=row.tools)
    assert str(caught.value).startswith(
        f"{folder.name}/chat_template.jinja: the model's chat template leaves out {lacks}, so that"
    )


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            {"name": "now", "arguments": "{"},
            "the arguments of the call now in turn 2 are '{'; they must be an object",
        ),
        ({"name": "now", "arguments": "[1]"}, "the arguments of the call now in turn 2 are"),
        ({"arguments": "{}"}, "a call in turn 2 has no name"),
    ],
)
def test_a_call_that_is_spoilt_is_refused(function: Json, said: str, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer(tokenizer_folder(tmp_path, "hermes"))
    with pytest.raises(DataError, match=re.escape(said)):
        tokenizer.render([*PROMPT, Message("assistant", tool_calls=[{"function": function}])])


@pytest.mark.parametrize("way", ["files", "keys"])
def test_of_several_templates_that_for_tools_is_taken_as_transformers_takes_it(way: str, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    tiny.make_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    templates = {"default": "{{ messages[0].content }}", "tool_use": "{{ tools | tojson }}{{ messages[0].content }}"}
    if way == "keys":
        path = tmp_path / "tokenizer_config.json"
        named = [{"name": name, "template": template} for name, template in templates.items()]
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"chat_template": named}), "utf-8")
    else:
        (tmp_path / "chat_template.jinja").write_text(templates["default"], "utf-8")
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text(templates["tool_use"], "utf-8")
    theirs, tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path), ChatTokenizer(tmp_path)
    chat: list[dict[str, str]] = [{"role": "user", "content": "What time is it?"}]
    for tools in (None, [TOOL]):
        expected = theirs.apply_chat_template(chat, tools=tools, tokenize=False)
        assert tokenizer.render(PROMPT, tools=tools) == expected


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_instruct_2507"])
def test_templates_as_their_models_come_with_them_have_the_ids_of_transformers_and_learn_each_turn(
    name: str, tmp_path: Path
) -> None:
    import trl
    from transformers import PreTrainedTokenizerFast

    # Without marks, and the second writes empty thoughts before the words of a turn, but of the last one only.
    source = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
    folder = tokenizer_folder(tmp_path, "hermes")
    (folder / "chat_template.jinja").write_bytes(source.read_bytes())
    theirs, tokenizer = PreTrainedTokenizerFast.from_pretrained(folder), ChatTokenizer(folder)
    for row in conversations(4, 40, "hermes"):
        tokens = tokenizer.row(row)
        expected = theirs.apply_chat_template(parsed(row), tools=row.tools, return_dict=False)
        assert tokens.prompt + tokens.answers[0] == expected
        learned = [piece.text for piece in shown_row(tokenizer, row, 100_000).answers[0] if piece.fate == "learned"]
        turns = [turn for turn in row.messages if turn.role == "assistant" and turn.weight != 0]
        for text, turn in zip(learned, turns, strict=True):
            assert text.endswith("<|im_end|>\n")
            assert "<|im_start|>" not in text
            assert (turn.content or "") in text
            assert text.count('{"name": ') == len(turn.tool_calls or [])
