"""Every shape becomes the same pair or conversation; what no shape is, is reported as such."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.containers import read_blocks
from runner.data.formats import formats, named
from runner.data.kinds.conversation import Conversation
from runner.data.kinds.judged import Judged
from runner.data.kinds.preference import Pair
from runner.data.reading.detect import detect
from runner.data.reading.files import DataFile
from runner.data.rows import Message, Role
from runner.errors import DataError
from tests.data.samples import (
    CONTAINERS,
    SHAPES,
    TEXT_SHAPES,
    assistant,
    look,
    reported,
    rows_of,
    simple_pair,
    unhurried,
    user,
    write_csv,
    write_lines,
)

PAIR = Pair(
    (user("What rises?"), assistant("Bread."), user("Why?")),
    (assistant("Yeast gives off gas."),),
    (assistant("It just does."),),
)
PAIRS = {
    "foundry": """{"input": {"messages": [{"role": "user", "content": "What rises?"},
        {"role": "assistant", "content": "Bread."}, {"role": "user", "content": "Why?"}]},
        "preferred_output": [{"role": "assistant", "content": "Yeast gives off gas."}],
        "non_preferred_output": [{"role": "assistant", "content": "It just does."}]}""",
    "trl": """{"prompt": [{"role": "user", "content": "What rises?"},
        {"role": "assistant", "content": "Bread."}, {"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "Yeast gives off gas."}],
        "rejected": [{"role": "assistant", "content": "It just does."}], "score_chosen": 9.5}""",
    "trl_implicit": """{"chosen": [{"role": "user", "content": "What rises?"},
        {"role": "assistant", "content": "Bread."}, {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Yeast gives off gas."}],
        "rejected": [{"role": "user", "content": "What rises?"},
        {"role": "assistant", "content": "Bread."}, {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "It just does."}]}""",
    "hh_rlhf": r"""{
        "chosen": "\n\nHuman: What rises?\n\nAssistant: Bread.\n\nHuman: Why?\n\nAssistant: Yeast gives off gas.",
        "rejected": "\n\nHuman: What rises?\n\nAssistant: Bread.\n\nHuman: Why?\n\nAssistant: It just does."}""",
    "sharegpt_preference": """{"conversations": [{"from": "human", "value": "What rises?"},
        {"from": "gpt", "value": "Bread."}, {"from": "human", "value": "Why?"}],
        "chosen": {"from": "gpt", "value": "Yeast gives off gas."},
        "rejected": {"from": "gpt", "value": "It just does."}}""",
    "alpaca_preference": """{"instruction": "Why?", "input": "", "history": [["What rises?", "Bread."]],
        "chosen": "Yeast gives off gas.", "rejected": "It just does."}""",
}
CONVERSATION = Conversation((Message("system", "Be brief."), *PAIR.prompt, *PAIR.chosen))
CONVERSATIONS = {
    "chat": """{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What rises?"},
        {"role": "assistant", "content": "Bread."}, {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Yeast gives off gas."}]}""",
    "alpaca": """{"system": "Be brief.", "instruction": "Why?", "history": [["What rises?", "Bread."]],
        "output": "Yeast gives off gas."}""",
    "sharegpt": """{"system": "Be brief.", "conversations": [{"from": "human", "value": "What rises?"},
        {"from": "gpt", "value": "Bread."}, {"from": "human", "value": "Why?"},
        {"from": "gpt", "value": "Yeast gives off gas."}]}""",
}
COMPLETION = """{"prompt": [{"role": "user", "content": "What rises?"}, {"role": "assistant", "content": "Bread."},
    {"role": "user", "content": "Why?"}], "completion": [{"role": "assistant", "content": "Yeast gives off gas."}]}"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(line.replace("\n", " ") + "\n" for line in lines), "utf-8")
        return path

    return write


def detected(path: Path, kind: str = "") -> str:
    file = DataFile(path.name, path)
    return detect(file, next(read_blocks(file)), kind).name


@pytest.mark.parametrize("shape", PAIRS)
def test_each_shape_of_pairs_becomes_the_same_pair(written: Callable[..., Path], shape: str) -> None:
    path = written(PAIRS[shape])
    assert detected(path) == shape
    assert rows_of(path) == rows_of(path, format=shape) == [PAIR]


@pytest.mark.parametrize("shape", CONVERSATIONS)
def test_each_shape_of_conversations_becomes_the_same_conversation(written: Callable[..., Path], shape: str) -> None:
    path = written(CONVERSATIONS[shape])
    assert detected(path) == shape
    assert rows_of(path, "conversation") == [CONVERSATION]


def test_only_the_completion_of_a_prompt_completion_row_is_learned(written: Callable[..., Path]) -> None:
    path = written(COMPLETION)
    question, answer, again = PAIR.prompt
    assert detected(path) == "trl_completion"
    unlearned = Message("assistant", answer.content, weight=0)
    assert rows_of(path, "conversation") == [Conversation((question, unlearned, again, *PAIR.chosen))]


JUDGED = {
    "chat": """{"messages": [{"role": "user", "content": "What rises?"}, {"role": "assistant", "content": "Bread."},
        {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Yeast gives off gas."}], "label": 1}""",
    "trl": """{"prompt": [{"role": "user", "content": "What rises?"}, {"role": "assistant", "content": "Bread."},
        {"role": "user", "content": "Why?"}], "completion": [{"role": "assistant", "content": "Yeast gives off gas."}],
        "label": true}""",
    "alpaca": """{"instruction": "Why?", "history": [["What rises?", "Bread."]], "output": "Yeast gives off gas.",
        "kto_tag": "True"}""",
    "sharegpt": """{"conversations": [{"from": "human", "value": "What rises?"}, {"from": "gpt", "value": "Bread."},
        {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Yeast gives off gas."}],
        "label": "desirable", "note": "read nowhere"}""",
}


def test_a_label_may_be_a_whole_number_of_floating_point_as_pandas_writes_it(written: Callable[..., Path]) -> None:
    row = '{"prompt": "Why?", "completion": "Gas.", "label": %s}'
    path = written(*(row % label for label in ("1.0", "0.0", '"1.0"')))
    assert [each.good for each in rows_of(path, "judged") if isinstance(each, Judged)] == [True, False, True]


@pytest.mark.parametrize("shape", JUDGED)
def test_a_label_next_to_each_shape_of_conversations_judges_the_last_answer(
    written: Callable[..., Path], shape: str
) -> None:
    path = written(JUDGED[shape])
    [row] = rows_of(path, "judged")
    assert isinstance(row, Judged)
    assert [(turn.role, turn.content) for turn in row.prompt] == [(turn.role, turn.content) for turn in PAIR.prompt]
    assert (row.reply, row.good) == (PAIR.chosen, True)
    assert detected(path, "judged") == "unpaired"


@pytest.mark.parametrize("shape", PAIRS)
def test_a_pair_is_split_into_a_good_and_a_bad_answer_of_one_line(written: Callable[..., Path], shape: str) -> None:
    path = written(PAIRS[shape])
    assert rows_of(path, "judged") == [
        Judged(PAIR.prompt, PAIR.chosen, True),
        Judged(PAIR.prompt, PAIR.rejected, False),
    ]
    assert look(path, "judged").splits["train"].rows == 2


@pytest.mark.parametrize("shape", PAIRS)
def test_a_pair_that_is_split_may_have_a_label_which_is_not_read(written: Callable[..., Path], shape: str) -> None:
    path = written(json.dumps(json.loads(PAIRS[shape]) | {"label": "science"}))
    assert [row.reply for row in rows_of(path, "judged") if isinstance(row, Judged)] == [PAIR.chosen, PAIR.rejected]


def test_of_a_pair_that_is_split_what_tools_say_is_not_learned() -> None:
    answer = (Message("assistant", tool_calls=[{"function": {"name": "look"}}]), Message("tool", "3"), assistant("3."))
    good, bad = Judged.parts(Pair((user("How many?"),), answer, (assistant("Many."),)))
    assert [[each.spans for each in row.learned()] for row in (good, bad)] == [[((1, 2), (3, 4))], [((1, 2),)]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            '{"prompt": "Why?", "completion": "Gas.", "label": "good"}',
            "label data.jsonl:2: the label is 'good'; allowed: ",
        ),
        (
            '{"prompt": "Why?", "completion": "Gas.", "label": 2}',
            "label data.jsonl:2: the label is 2; allowed: true or ",
        ),
        (
            '{"prompt": "Why?", "completion": "Gas.", "label": 0.7}',
            "label data.jsonl:2: the label is 0.7; allowed: true or ",
        ),
        ('{"prompt": "Why?", "completion": "Gas."}', "label data.jsonl:2: the label is None; allowed: true or false ("),
        (
            '{"prompt": "Why?", "label": true}',
            "no-answer data.jsonl:2: the judgement has no answer next to it; it needs ",
        ),
        (
            '{"prompt": "", "completion": "Gas.", "label": true}',
            "no-prompt data.jsonl:2: the prompt is empty; the answer",
        ),
        (
            '{"prompt": "Why?", "completion": " ", "label": true}',
            "empty-answer data.jsonl:2: the judged answer is empty",
        ),
    ],
)
def test_a_judgement_that_cannot_be_learned_from_is_reported_by_its_line(
    written: Callable[..., Path], tmp_path: Path, row: str, message: str
) -> None:
    path = written('{"prompt": "Why?", "completion": "Gas.", "label": true}', row)
    found, *_ = reported(look(path, "judged"), tmp_path)
    assert found.startswith(f"error {message}")


def test_the_pair_is_checked_before_it_is_split(written: Callable[..., Path], tmp_path: Path) -> None:
    path = written('{"prompt": "Why?", "chosen": "Gas.", "rejected": "Gas."}')
    [found] = reported(look(path, "judged"), tmp_path)
    assert found.startswith("error equal-answers data.jsonl:1: the chosen and the rejected answer are equal")


def test_conversations_without_a_label_are_no_judgements(written: Callable[..., Path]) -> None:
    path = written(CONVERSATIONS["chat"])
    with pytest.raises(
        DataError, match=r"holds conversations \(format chat\), but the method learns from answers judged"
    ):
        look(path, "judged")


def test_every_format_has_a_golden_row() -> None:
    assert set(formats()) == {
        *PAIRS,
        *CONVERSATIONS,
        "trl_completion",
        "unpaired",
        "problem",
    }  # the last: test_problems.py


@pytest.mark.parametrize("shape", PAIRS)
def test_learning_from_conversations_takes_the_chosen_answer_of_pairs(written: Callable[..., Path], shape: str) -> None:
    assert rows_of(written(PAIRS[shape]), "conversation") == [Conversation(PAIR.prompt + PAIR.chosen)]


def test_texts_are_a_users_prompt_and_an_assistants_answers(written: Callable[..., Path]) -> None:
    path = written('{"prompt": "Why?", "chosen": "Gas.", "rejected": "No idea."}')
    assert rows_of(path) == [Pair((user("Why?"),), (assistant("Gas."),), (assistant("No idea."),))]


def test_answers_that_repeat_the_prompt_are_relieved_of_it(written: Callable[..., Path]) -> None:
    question, good, bad = (
        {"role": role, "content": text} for role, text in [("user", "Why?"), ("assistant", "A"), ("assistant", "B")]
    )
    path = written(json.dumps({"prompt": [question], "chosen": [question, good], "rejected": [question, bad]}))
    assert rows_of(path) == [Pair((user("Why?"),), (assistant("A"),), (assistant("B"),))]


def test_an_implicit_prompt_ends_before_the_assistants_first_turn_that_differs(written: Callable[..., Path]) -> None:
    rows = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "A"}]
    longer = [*rows, {"role": "assistant", "content": "B"}]
    [pair] = rows_of(written(json.dumps({"chosen": rows, "rejected": longer})))
    assert pair == Pair((user("Why?"),), (assistant("A"),), (assistant("A"), assistant("B")))


def test_two_conversations_that_begin_with_different_questions_are_no_pair(written: Callable[..., Path]) -> None:
    asked = [[{"role": "user", "content": text}, {"role": "assistant", "content": "A"}] for text in ("Why?", "How?")]
    (group,) = look(written(json.dumps({"chosen": asked[0], "rejected": asked[1]}))).findings
    assert "data.jsonl:1: the two conversations begin with different turns; both" in str(group.examples[0])


def test_alpacas_input_follows_its_instruction_on_a_line_of_its_own(written: Callable[..., Path]) -> None:
    path = written('{"instruction": "Translate.", "input": "Brot", "output": "Bread"}')
    assert rows_of(path, "conversation") == [Conversation((user("Translate.\nBrot"), assistant("Bread")))]


def test_a_list_of_text_parts_is_the_same_as_their_text(written: Callable[..., Path]) -> None:
    parts = '[{"type": "text", "text": "What "}, {"type": "text", "text": "rises?"}]'
    assert rows_of(written(PAIRS["foundry"].replace('"What rises?"', parts))) == [PAIR]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"type": "text", "value": "Why?"},
            "a part of type 'text' with the keys type, value; its text is in `text`, as {layout}; write it so",
        ),
        ("Why?", "a part that is text; allowed: {layout}; write it so"),
        (3, "a part that is no object; allowed: {layout}; write it so"),
        (
            {"type": "input_text", "text": "Why?"},
            "a part of type 'input_text'; a text is written as {layout}; write it so, or leave the part out",
        ),
        (
            {"type": "input_audio", "input_audio": {}},
            "a part of type 'input_audio'; only text and images (image_url) are read; leave it out",
        ),
    ],
)
def test_a_part_of_another_layout_is_answered_with_the_layout_that_is_read(
    written: Callable[..., Path], tmp_path: Path, part: object, message: str
) -> None:
    path = written(PAIRS["foundry"], PAIRS["foundry"].replace('"What rises?"', json.dumps([part])))
    said = message.replace("{layout}", '{"type": "text", "text": …}')
    assert reported(look(path), tmp_path) == [f"error not-text data.jsonl:2: a message's content has {said}"]


def test_sharegpts_calls_get_ids_that_their_observations_carry() -> None:
    format = named("sharegpt")
    turns = [("human", "Sum?"), ("function_call", '{"name": "add", "arguments": {"a": 1}}'), ("observation", "3")]
    raw = {"conversations": [{"from": who, "value": text} for who, text in turns], "tools": '[{"name": "add"}]'}
    row = format.to_row(msgspec.convert(raw, format.raw))
    assert isinstance(row, Conversation)
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    assert row.messages[1:] == (Message("assistant", tool_calls=[call]), Message("tool", "3", tool_call_id="call_1"))
    assert row.tools == [{"name": "add"}]


CANONICAL = """\
{"prompt":[{"role":"user","content":"How old is oak 0?"}],\
"chosen":[{"role":"assistant","content":"Count its 0 rings."}],\
"rejected":[{"role":"assistant","content":"Hard to say, 0?"}]}
{"prompt":[{"role":"user","content":"How old is oak 1?"}],\
"chosen":[{"role":"assistant","content":"Count its 1 rings."}],\
"rejected":[{"role":"assistant","content":"Hard to say, 1?"}]}
"""
FINGERPRINT = sha256(CANONICAL.encode()).hexdigest()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_or_container_changes_the_fingerprint(tmp_path: Path, shape: str, container: str) -> None:
    pairs = [simple_pair(number) for number in range(2)]
    path = tmp_path / f"data.{container}"
    CONTAINERS[container](path, [SHAPES[shape](pair) for pair in pairs])
    assert look(path).splits["train"].fingerprint == FINGERPRINT


@pytest.mark.parametrize("shape", TEXT_SHAPES)
def test_a_table_of_texts_has_the_same_fingerprint_too(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "data.csv"
    write_csv(path, [TEXT_SHAPES[shape](simple_pair(number)) for number in range(2)])
    assert look(path).splits["train"].fingerprint == FINGERPRINT


def test_tools_are_kept_in_every_shape_that_has_them(tmp_path: Path) -> None:
    path, tools = tmp_path / "data.jsonl", [{"type": "function", "function": {"name": "add"}}]
    row = SHAPES["foundry"](simple_pair(1))
    row["input"]["tools"] = tools
    write_lines(path, [row])
    write_lines(other := tmp_path / "trl.jsonl", [SHAPES["trl"](simple_pair(1)) | {"tools": tools}])
    assert rows_of(path)[0].tools == tools
    assert rows_of(path) == rows_of(other)


@pytest.mark.parametrize("shape", ["foundry", "trl", "trl_implicit"])
def test_tools_may_be_json_in_a_text(tmp_path: Path, shape: str) -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]
    row = SHAPES[shape](simple_pair(1))
    row.get("input", row)["tools"] = json.dumps(tools)
    write_lines(path := tmp_path / "data.jsonl", [row])
    assert [each.tools for each in rows_of(path)] == [tools]
    assert [each.tools for each in rows_of(path, "problem")] == [tools]


def test_a_table_may_have_tools_in_some_of_its_rows(tmp_path: Path) -> None:
    rows = [
        TEXT_SHAPES["trl"](simple_pair(number)) | {"tools": text} for number, text in enumerate(["[{}]", "", "null"])
    ]
    write_csv(path := tmp_path / "data.csv", rows)
    assert [each.tools for each in rows_of(path)] == [[{}], None, None]


def test_the_tools_of_a_foundry_pair_are_those_of_its_prompt(tmp_path: Path) -> None:
    tools = [{"name": "add"}]
    row = SHAPES["foundry"](simple_pair(1))
    row["input"]["tools"] = tools
    write_lines(path := tmp_path / "data.jsonl", [row])
    assert [each.tools for each in rows_of(path, "problem")] == [tools]


def test_a_text_called_tools_in_the_arguments_of_a_call_stays_a_text(tmp_path: Path) -> None:
    turn = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"tools": "[]"}}}]}
    row = {"messages": [{"role": "user", "content": "Hm"}, turn], "tools": '[{"name": "add"}]'}
    write_lines(path := tmp_path / "data.jsonl", [row])
    [found] = rows_of(path, "conversation")
    assert found.answer[0].tool_calls == turn["tool_calls"]
    assert found.tools == [{"name": "add"}]


REFUSED: list[tuple[str, str, str]] = [
    (
        '{"prompt": "Why?", "chosen": "Gas."}',
        "trl",
        "error missing-key data.jsonl:1: the row has no `rejected`; a row of format trl needs prompt, "
        "chosen, rejected; add it",
    ),
    (
        '{"prompt": "Why?", "chosen": "Gas.", "rejcted": "No."}',
        "trl",
        "error missing-key data.jsonl:1: the row has no `rejected`; a row of format trl needs prompt, "
        "chosen, rejected; rename `rejcted`",
    ),
    (
        '{"messages": [{"role": "user"}, {"content": "Gas."}]}',
        "chat",
        "error missing-key data.jsonl:1: `messages[1]` has no `role`, which it needs; add it",
    ),
    (
        '{"messages": "Why?"}',
        "chat",
        "error wrong-type data.jsonl:1: `messages` is text; allowed: a list; change it",
    ),
    (
        '{"prompt": 3, "chosen": "Gas.", "rejected": "No."}',
        "trl",
        "error wrong-type data.jsonl:1: `prompt` is an integer; allowed: text or a list; change it",
    ),
    (
        '"Why?"',
        "trl",
        "error wrong-type data.jsonl:1: the row is text; allowed: an object; change it",
    ),
    (
        '{"messages": [{"role": "User", "content": "Why?"}]}',
        "chat",
        "error unknown-role data.jsonl:1: `messages[0].role` is 'User'; allowed: system, developer, user, "
        "assistant, tool; change it",
    ),
    (
        '{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "A", "weight": 2}]}',
        "chat",
        "error wrong-value data.jsonl:1: `messages[1].weight` is 2; allowed: 0, 1; change it",
    ),
    (
        '{"conversations": [{"from": "alien", "value": "Hm"}]}',
        "sharegpt",
        "error unknown-role data.jsonl:1: `from` is 'alien'; allowed: human, user, gpt, chatgpt, bing, bard, "
        "assistant, function_call, system, observation, tool; rename it",
    ),
    (
        '{"conversations": [{"from": "human", "value": "Hm"}, {"from": "function_call", "value": "add(1)"}]}',
        "sharegpt",
        "error wrong-type data.jsonl:1: a function_call turn is not the JSON of an object with `name` and `arguments` "
        "(JSON is malformed: invalid character (byte 0)); repair it",
    ),
    (
        '{"conversations": [{"from": "human", "value": "Hm"}], "tools": "{}"}',
        "sharegpt",
        "error wrong-type data.jsonl:1: `tools` is not the JSON of a list of objects (Expected `array`, got `object`); "
        "repair it",
    ),
    *(
        (
            json.dumps({"prompt": prompt} | answers),
            shape,
            "error transcript-prompt data.jsonl:1: `prompt` is a transcript, from 'Human:' to 'Assistant:', which "
            "would be learned as one turn of the user; give its turns as messages (`role`, `content`), or put it "
            "before both answers and leave `prompt` out (format hh_rlhf)",
        )
        for prompt in ("\n\nHuman: Why?\n\nAssistant:", "Human: Why?\nAssistant: ", "Human: Hi\n\nAssistant:\n")
        for shape, answers in [("trl", {"chosen": " A", "rejected": " B"}), ("trl_completion", {"completion": " A"})]
    ),
    (
        '{"chosen": "Gas.", "rejected": "No."}',
        "hh_rlhf",
        "error no-transcript data.jsonl:1: the text begins with 'Gas.'; a transcript begins with '\\n\\nHuman:'; "
        "give the prompt in a key of its own (`prompt`, `chosen`, `rejected`)",
    ),
]


@pytest.mark.parametrize(("line", "shape", "message"), REFUSED)
def test_a_row_that_is_not_of_its_format_is_refused(
    written: Callable[..., Path], tmp_path: Path, line: str, shape: str, message: str
) -> None:
    kind = named(shape).kind
    assert reported(look(written(line), kind, format=shape), tmp_path) == [message]


def test_the_format_is_that_of_most_rows_not_of_the_first(written: Callable[..., Path], tmp_path: Path) -> None:
    path = written('{"prompt": "Why?", "chosen": "Gas."}', *[PAIRS["trl"]] * 3)
    assert detected(path) == "trl"
    assert look(path).refused == 1


def test_an_unknown_format_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DataError) as caught:
        named("sharegtp")
    assert str(caught.value) == (
        "dataset.format: got 'sharegtp'; did you mean 'sharegpt'? allowed: auto, alpaca, alpaca_preference, chat, "
        "foundry, hh_rlhf, problem, sharegpt, sharegpt_preference, trl, trl_completion, trl_implicit, unpaired."
    )


def test_unknown_keys_are_answered_with_those_of_each_format(written: Callable[..., Path]) -> None:
    with pytest.raises(DataError) as caught:
        look(written('{"question": "Why?", "answer": "Gas."}'))
    assert str(caught.value).endswith(
        "data.jsonl:1: a row with the keys question, answer is of no known format; alpaca has instruction, output; "
        "alpaca_preference has instruction, chosen, rejected; chat has messages; foundry has input, preferred_output, "
        "non_preferred_output; hh_rlhf has chosen, rejected; sharegpt has conversations; sharegpt_preference has "
        "conversations, chosen, rejected; trl has prompt, chosen, rejected; trl_completion has prompt, completion; "
        "trl_implicit has chosen, rejected; rename its keys."
    )


def test_pairs_cannot_be_learned_from_conversations(written: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        look(written(CONVERSATIONS["chat"]))
    assert str(caught.value) == (
        f"{tmp_path}/data.jsonl: holds conversations (format chat), but the method learns from pairs of a chosen and "
        "a rejected answer; give it such data, or choose a method that learns from conversations."
    )


texts = (
    st.text(st.characters(codec="utf-8"), min_size=1).map(str.strip).filter(lambda text: "\n\n" not in text and text)
)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    turns = draw(st.lists(texts, min_size=1, max_size=5).filter(lambda turns: len(turns) % 2))
    roles: list[Role] = ["user", "assistant"] * 3
    chosen, rejected = draw(st.lists(texts, min_size=2, max_size=2, unique=True))
    prompt = tuple(Message(role, text) for role, text in zip(roles, turns, strict=False))
    return Pair(prompt, (assistant(chosen),), (assistant(rejected),))


@unhurried
@given(st.lists(pairs(), min_size=1, max_size=4), st.sampled_from(sorted(SHAPES)), st.sampled_from(sorted(CONTAINERS)))
def test_any_pair_comes_back_from_any_shape_and_container(
    tmp_path: Path, wanted: list[Pair], shape: str, container: str
) -> None:
    path = tmp_path / f"data.{container}"
    CONTAINERS[container](path, [SHAPES[shape](pair) for pair in wanted])
    assert rows_of(path, format=shape) == wanted


@unhurried
@given(st.lists(pairs().filter(lambda pair: len(pair.prompt) == 1), min_size=1), st.sampled_from(sorted(TEXT_SHAPES)))
def test_any_pair_of_one_question_comes_back_from_a_table(tmp_path: Path, wanted: list[Pair], shape: str) -> None:
    path = tmp_path / "data.csv"
    write_csv(path, [TEXT_SHAPES[shape](pair) for pair in wanted])
    assert rows_of(path, format=shape) == wanted
