"""Every check is seen to fire, at the line of its row and in these words, and to let good rows pass."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.quality.text_rules import odd_rows, odd_texts
from runner.data.rows import canonical_each, canonical_lines
from tests.data.samples import assistant, look, reported, rows_of, unhurried, user

QUESTION, ANSWER = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Gas."}
OTHER, SYSTEM = {"role": "assistant", "content": "No."}, {"role": "system", "content": "Be brief."}
CALL = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "look", "arguments": "{}"}}]}
RESULT = {"role": "tool", "content": "3", "tool_call_id": "1"}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
EMPTY = {"role": "assistant", "content": " \n"}
UNLEARNED = ANSWER | {"weight": 0}
Turns = list[dict[str, Any]]


def pair(prompt: Turns, chosen: Turns, rejected: Turns, **more: Any) -> str:
    return json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}, ensure_ascii=False)


def chat(*turns: dict[str, Any], **more: Any) -> str:
    return json.dumps({"messages": turns, **more}, ensure_ascii=False)


def text_pair(prompt: str, chosen: str, rejected: str = "No.") -> str:
    return json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}, ensure_ascii=False)


def after_a_good_row(folder: Path, kind: str, row: str) -> list[str]:
    """Return what is reported of a file with a good row in line 1 and this one in line 2."""
    good = pair([QUESTION], [ANSWER | {"content": "Yes."}], [OTHER]) if kind == "preference" else chat(QUESTION, ANSWER)
    path = folder / "data.jsonl"
    path.write_text(f"{good}\n{row}\n", "utf-8")
    return [each for each in reported(look(path, kind), folder) if not each.startswith("note")]


BAD_PAIRS = [
    (
        pair([], [ANSWER], [OTHER]),
        "no-prompt data.jsonl:2: the prompt is empty; both answers must reply to something; add it",
    ),
    (
        pair([{"role": "user", "content": " "}], [ANSWER], [OTHER]),
        "no-prompt data.jsonl:2: the prompt is empty; both answers must reply to something; add it",
    ),
    (
        pair([SYSTEM], [ANSWER], [OTHER]),
        "no-prompt data.jsonl:2: there are only system turns; one of the user is needed; add it",
    ),
    (
        pair([QUESTION, ANSWER], [ANSWER], [OTHER]),
        "role-order data.jsonl:2: the prompt ends with a turn of the assistant; it must end with the user's or a "
        "tool's; move that turn into both answers, or remove it",
    ),
    (
        pair([QUESTION], [], [OTHER]),
        "empty-answer data.jsonl:2: the chosen answer has no turn; it needs one of the assistant; add it",
    ),
    (
        pair([QUESTION], [ANSWER], [EMPTY]),
        "empty-answer data.jsonl:2: the rejected answer is empty; it needs text; write it or remove the row",
    ),
    (
        pair([QUESTION], [{"role": "user", "content": "Oh."}], [OTHER]),
        "role-order data.jsonl:2: the chosen answer has a turn of the user where only the assistant's is allowed; "
        "move what both answers share into the prompt, or remove it",
    ),
    (
        pair([QUESTION], [ANSWER], [OTHER, QUESTION, OTHER]),
        "role-order data.jsonl:2: the rejected answer has a turn of the user where only the assistant's is allowed; "
        "move what both answers share into the prompt, or remove it",
    ),
    (
        pair([QUESTION], [CALL, RESULT], [OTHER]),
        "role-order data.jsonl:2: the chosen answer has a turn of the tool where only the assistant's is allowed; "
        "move what both answers share into the prompt, or remove it",
    ),
    (
        pair([QUESTION], [ANSWER], [ANSWER]),
        "equal-answers data.jsonl:2: the chosen and the rejected answer are equal; they must differ; change one or "
        "remove the row",
    ),
    (
        pair([ANSWER, QUESTION], [ANSWER], [OTHER]),
        "role-order data.jsonl:2: the conversation begins with a turn of the assistant; the user must come first; "
        "add what was asked, or remove that turn",
    ),
    (
        pair([QUESTION, SYSTEM, QUESTION], [ANSWER], [OTHER]),
        "role-order data.jsonl:2: turn 2 is a system turn; these are allowed at the start only; move it there",
    ),
    (
        pair([QUESTION, RESULT], [ANSWER], [OTHER]),
        "role-order data.jsonl:2: turn 2 is a tool's after the user's; a tool replies to the assistant; "
        "add the assistant's call, or remove that turn",
    ),
]
BAD_CONVERSATIONS = [
    (
        chat(),
        "no-prompt data.jsonl:2: the conversation is empty; it needs a question and an answer; add them",
    ),
    (
        chat(QUESTION),
        "last-turn data.jsonl:2: the last turn is the user's; it must be the assistant's; add the answer",
    ),
    (
        chat({"role": "user", "content": ""}, ANSWER),
        "no-prompt data.jsonl:2: the user's turns are empty; the answer must reply to something; add it",
    ),
    (
        chat(QUESTION, UNLEARNED),
        "nothing-to-learn data.jsonl:2: every turn of the assistant has weight 0; one at least needs weight 1; "
        "set it or remove the row",
    ),
    (
        chat(QUESTION, EMPTY),
        "empty-answer data.jsonl:2: an answer is empty; it needs text; write it, or set its weight to 0",
    ),
    (
        chat(QUESTION, EMPTY, QUESTION, ANSWER),
        "empty-answer data.jsonl:2: an answer is empty; it needs text; write it, or set its weight to 0",
    ),
    (
        chat(ANSWER),
        "role-order data.jsonl:2: the conversation begins with a turn of the assistant; the user must come first; "
        "add what was asked, or remove that turn",
    ),
    (
        chat(SYSTEM, QUESTION, SYSTEM, ANSWER),
        "role-order data.jsonl:2: turn 3 is a system turn; these are allowed at the start only; move it there",
    ),
]
GOOD_PAIRS = [
    pair([SYSTEM, QUESTION], [ANSWER], [OTHER]),
    pair([SYSTEM, {"role": "developer", "content": "Be kind."}, QUESTION], [ANSWER], [OTHER]),
    pair([QUESTION, CALL, RESULT, RESULT], [ANSWER], [OTHER], tools=TOOLS),
    pair([QUESTION], [CALL, RESULT, ANSWER], [OTHER], tools=TOOLS),
    pair([QUESTION, ANSWER, ANSWER, QUESTION], [ANSWER], [OTHER]),
    pair([QUESTION], [ANSWER], [{"role": "assistant", "content": "Gas. "}]),
]
GOOD_CONVERSATIONS = [
    chat(SYSTEM, QUESTION, ANSWER),
    chat(QUESTION, EMPTY | {"weight": 0}, QUESTION, ANSWER),
    chat(QUESTION, CALL, RESULT, ANSWER, tools=TOOLS),
    chat(QUESTION, CALL, tools=TOOLS),
]


@pytest.mark.parametrize(("row", "message"), BAD_PAIRS)
def test_a_pair_that_cannot_be_trained_on_is_refused(tmp_path: Path, row: str, message: str) -> None:
    assert after_a_good_row(tmp_path, "preference", row) == [f"error {message}"]


@pytest.mark.parametrize(("row", "message"), BAD_CONVERSATIONS)
def test_a_conversation_that_cannot_be_trained_on_is_refused(tmp_path: Path, row: str, message: str) -> None:
    assert after_a_good_row(tmp_path, "conversation", row) == [f"error {message}"]


@pytest.mark.parametrize("row", GOOD_PAIRS)
def test_a_good_pair_passes(tmp_path: Path, row: str) -> None:
    assert after_a_good_row(tmp_path, "preference", row) == []


@pytest.mark.parametrize("row", GOOD_CONVERSATIONS)
def test_a_good_conversation_passes(tmp_path: Path, row: str) -> None:
    assert after_a_good_row(tmp_path, "conversation", row) == []


def test_the_weight_of_a_turn_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(chat(QUESTION, UNLEARNED, QUESTION, ANSWER), "utf-8")
    [row] = rows_of(path, "conversation")
    assert isinstance(row, Conversation)
    assert [turn.weight for turn in row.messages] == [None, 0, None, None]


UNSEEN = "a reader does not see it, but the model learns it: remove or replace it"
ODD_TEXTS = [
    (
        text_pair("Why?", "Gas. Human: And?"),
        "transcript-marker data.jsonl:2: `Human:` is in the chosen answer; a transcript may not have been cut into "
        "its turns: remove it unless it is meant",
    ),
    (
        text_pair("Why?", "Gas.", "Assistant: No. Human: Oh. Assistant: Yes."),
        "transcript-marker data.jsonl:2: `Assistant:` (3 times) is in the rejected answer; a transcript may not "
        "have been cut into its turns: remove it unless it is meant",
    ),
    (
        text_pair("I am {{ user.name }}.", "Hello."),
        "placeholder data.jsonl:2: `{{ user.name }}` is in the prompt (turn 1); a template was not filled in: "
        "put the value there",
    ),
    *(
        (
            text_pair(f"{before}{who}: Why?\n{gap}Assistant: Gas.\n{gap}{who}: So?", "Yes."),
            f"transcript data.jsonl:2: `{shown}{who}: Why?\\n{gap and chr(92)}{gap and 'n'}Assistant:` is in the "
            "prompt (turn 1); a transcript is one turn here and may have to be cut into its turns: give them as "
            "messages unless it is meant",
        )
        for before, shown, who, gap in [
            ("", "", "Human", "\n"),
            ("\n\n", "\\n", "User", ""),
            ("Hm.\n", "\\n", "User", ""),
        ]
    ),
    *(
        (
            text_pair(f"{{{{{inner}}}}}", "Hello."),
            f"placeholder data.jsonl:2: `{{{{{shown}}}}}` is in the prompt (turn 1); a template was not filled in: "
            "put the value there",
        )
        for inner, shown in [("\n  msg\n", "\\n  msg\\n"), ("\tmsg ", "\\tmsg ")]
    ),
    *(
        (
            text_pair("Half of 48?", f"<<48/2{sign}=24>>24"),
            f"calculator-mark data.jsonl:2: `<<48/2{shown}=24>>` is in the chosen answer; the model learns to "
            "write it: remove it",
        )
        for sign, shown in [("\t", "\\t"), ("\r", "\\r")]
    ),
    (
        text_pair("Why?", f"<<{'1+' * 500}1=501>>"),
        f"calculator-mark data.jsonl:2: `<<{'1+' * 39}…` is in the chosen answer; the model learns to write it: "
        "remove it",
    ),
    (
        text_pair("What is 1+2?", "<<1+2=3>>3"),
        "calculator-mark data.jsonl:2: `<<1+2=3>>` is in the chosen answer; the model learns to write it: remove it",
    ),
    *(
        (
            text_pair("Why?", f"Gas.{token}"),
            f"special-token data.jsonl:2: `{token}` is in the chosen answer; chat templates add these themselves: "
            "remove it",
        )
        for token in (
            "<|im_end|>",
            "[INST]",
            "[/INST]",
            "<<SYS>>",
            "<</SYS>>",
            "<s>",
            "</s>",
            "<start_of_turn>",
            "<end_of_turn>",
        )
    ),
    *(
        (text_pair(f"Why{sign}?", "Gas."), f"{rule} data.jsonl:2: {code} is in the prompt (turn 1); {UNSEEN}")
        for rule, sign, code in [
            ("control-character", "\x00", "U+0000"),
            ("control-character", "\x08", "U+0008"),
            ("control-character", "\x0b", "U+000B"),
            ("control-character", "\x0c", "U+000C"),
            ("control-character", "\x1b", "U+001B"),
            ("control-character", "\x7f", "U+007F"),
            ("control-character", "\x80", "U+0080"),
            ("control-character", "\x9f", "U+009F"),
            ("no-break-space", "\u00a0", "U+00A0"),
            ("zero-width-space", "\u200b", "U+200B"),
            ("line-separator", "\u2028", "U+2028"),
            ("line-separator", "\u2029", "U+2029"),
            ("byte-order-mark", "\ufeff", "U+FEFF"),
            ("replacement-character", "\ufffd", "U+FFFD"),
        ]
    ),
]
PLAIN_TEXTS = [
    text_pair("Human: or Assistant: may stand in a question?", "Yes."),
    text_pair("Complete: Human: Why? Assistant:", "Gas."),
    text_pair("Who is the Assistant: you?\nHuman: me?", "Yes."),
    text_pair("Why?\tOr\nwhy not?\r\n", 'A "quote", a \\ and a \\u0000 written out.'),
    text_pair("f'{{}}' {1} {a: {b: 1}}", "1 << 2, a <b> and c > d, <br>, [INSTALL]"),
    text_pair("Näher, “quoted” – 中文 🦊 ½", "ﬁne…"),
    text_pair("x <| y |> z", "<| a b |>"),
    text_pair(r"\frac{a}{b} \begin{x} \u0041 \\f", r"C:\bin\users\f"),
]


@pytest.mark.parametrize(("row", "message"), ODD_TEXTS)
def test_what_seldom_belongs_into_a_text_is_reported(tmp_path: Path, row: str, message: str) -> None:
    assert after_a_good_row(tmp_path, "preference", row) == [f"warning {message}"]


@pytest.mark.parametrize("row", PLAIN_TEXTS)
def test_ordinary_texts_are_not_odd(tmp_path: Path, row: str) -> None:
    assert after_a_good_row(tmp_path, "preference", row) == []


snippets = st.sampled_from(["\\", "\f", "\b", "f", "u", "n", '"', "{{", "x", "}}", "<", "<|", "|>", "[INST]", "Human:"])
letters = st.characters(codec="utf-8")
texts = st.lists(snippets | letters | st.sampled_from(["\u00a0", "\u200b", "\ufeff", "é", "\n"]), min_size=1).map(
    "".join
)


@unhurried
@given(st.lists(texts, min_size=1, max_size=5))
def test_the_quick_search_for_odd_texts_misses_none(parts: list[str]) -> None:
    rows = [Pair((user(part),), (assistant(f"{part}."),), (assistant("No."),)) for part in parts]
    expected = [(place, odd) for place, row in enumerate(rows) for odd in odd_texts(row)]
    assert list(odd_rows(rows, canonical_lines(rows), canonical_each(rows))) == expected


def test_an_invisible_character_inside_a_marker_is_reported_of_both(tmp_path: Path) -> None:
    messages = after_a_good_row(tmp_path, "preference", text_pair("Half of 48?", "<<48/2\u00a0=24>>24"))
    assert [message.split(" is in ")[0] for message in messages] == [
        "warning calculator-mark data.jsonl:2: `<<48/2\\xa0=24>>`",
        "warning no-break-space data.jsonl:2: U+00A0",
    ]


@pytest.mark.parametrize(
    "text",
    ["<<" + "=" * 300_000, "Assistant:" + "\nUser: x" * 100_000, "{{" * 300_000, "{{" + " " * 300_000, "<|" * 300_000],
)
def test_the_search_in_a_long_text_takes_no_longer_than_its_length(text: str) -> None:
    row = Pair((user(text),), (assistant(text),), (assistant("No."),))
    started = time.process_time()
    list(odd_texts(row))
    assert time.process_time() - started < 5  # a search that starts over at each mark takes minutes


def test_odd_texts_of_conversations_are_reported_by_turn(tmp_path: Path) -> None:
    odd = {"role": "assistant", "content": "Human: {{name}}"}
    messages = after_a_good_row(tmp_path, "conversation", chat({"role": "user", "content": "Human: {{x}}"}, odd))
    places = [message.split(" is in ")[1].split(";")[0] for message in messages]
    assert places == ["turn 1", "turn 2", "turn 2"]


def test_two_turns_of_the_user_in_a_row_are_odd(tmp_path: Path) -> None:
    row = pair([SYSTEM, QUESTION, QUESTION], [ANSWER], [OTHER])
    assert after_a_good_row(tmp_path, "preference", row) == [
        "warning repeated-turn data.jsonl:2: turns 2 and 3 are both the user's; join them if they are one"
    ]
