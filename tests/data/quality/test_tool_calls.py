"""Calls of tools that do not fit what is around them: undeclared, without an answer, answered without a call."""

from typing import Any

import pytest

from runner.data.kinds.conversation import Conversation
from runner.data.kinds.judged import Judged
from runner.data.kinds.preference import Pair
from runner.data.kinds.problem import Problem
from runner.data.rows import Message
from tests.data.samples import assistant, user

LOOK = {"type": "function", "function": {"name": "look"}}
FLAT = {"name": "look", "parameters": {}}
"""As data sets of Hugging Face declare tools, too."""


def call(*ids: str | None, name: str = "look") -> Message:
    made: list[dict[str, Any]] = [
        {"function": {"name": name, "arguments": "{}"}} | ({"id": id} if id else {}) for id in ids
    ]
    return Message("assistant", tool_calls=made)


def answer(id: str | None = None) -> Message:
    return Message("tool", "3", tool_call_id=id)


def odd(*turns: Message, tools: list[dict[str, Any]] | None = None) -> list[tuple[str, str]]:
    return [tuple(each) for each in Conversation(turns, tools).check()]  # type: ignore[misc]


GOOD = [
    (user("How many?"), call("a"), answer("a"), assistant("3.")),
    (user("How many?"), call("a", "b"), answer("b"), answer("a"), assistant("3.")),
    (user("How many?"), call(None, None), answer(), answer(), assistant("3.")),
    (user("How many?"), call("a"), answer("a"), call("b"), answer("b"), assistant("3."), user("Sure?"), call("c")),
]


@pytest.mark.parametrize("tool", [LOOK, FLAT])
@pytest.mark.parametrize("turns", GOOD)
def test_calls_that_are_declared_and_answered_in_turn_are_not_mentioned(
    turns: tuple[Message, ...], tool: dict[str, Any]
) -> None:
    assert odd(*turns, tools=[tool]) == []


@pytest.mark.parametrize(("tools", "declared"), [(None, "none"), ([LOOK], "`look`")])
def test_a_call_that_the_row_does_not_declare_is_named(tools: list[dict[str, Any]] | None, declared: str) -> None:
    assert odd(user("How many?"), call("a", name="count"), tools=tools) == [
        ("undeclared-call",
         f"turn 2 calls `count`, which the row does not declare (its `tools`: {declared}); declare it, or correct the "
         "name"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "turns",
    [
        (user("How many?"), call("a"), assistant("3.")),
        (user("How many?"), call("a", "b"), answer("a"), assistant("3.")),
        (user("How many?"), call(None, None), answer(), assistant("3.")),
    ],
)
def test_a_call_without_an_answer_before_the_next_turn_is_named(turns: tuple[Message, ...]) -> None:
    assert odd(*turns, tools=[LOOK]) == [
        ("unanswered-call",
         "the call of `look` in turn 2 has no answer of a tool, without which services refuse the row; add the tool's "
         "turn, or leave the call out"),
    ]  # fmt: skip


def test_an_answer_to_another_call_is_named_and_the_open_call_too() -> None:
    found = odd(user("How many?"), call("a"), answer("z"), assistant("3."), tools=[LOOK])
    assert [rule for rule, _ in found] == ["unanswered-call", "unknown-call"]
    assert found[1][1].startswith("turn 3 answers the call 'z', which the assistant has not just made")


def test_a_call_in_the_prompt_of_a_pair_is_named_once() -> None:
    row = Pair((user("How many?"), call("a"), answer("a"), user("Sure?")), (assistant("Yes."),), (assistant("No."),))
    assert [each.rule for each in row.check()] == ["undeclared-call"]
    assert not row.is_plain()


@pytest.mark.parametrize("wrong", [["look"], {"is": "look"}, 3, None])
def test_anything_may_be_in_the_place_of_a_name_or_an_id(wrong: Any) -> None:
    function = {"name": wrong, "arguments": "{}"}
    made = Message("assistant", tool_calls=[{"id": wrong, "function": function}])
    assert (
        odd(user("How many?"), made, answer(), assistant("3."), tools=[{"function": function}, {"name": wrong}]) == []
    )


@pytest.mark.parametrize("returned", ["", None])
def test_a_tool_that_returns_nothing_can_be_replied_to(returned: str | None) -> None:
    prompt = (user("Stop."), call("a"), Message("tool", returned, tool_call_id="a"))
    good, bad = (assistant("Stopped."),), (assistant("No."),)
    for row in (Pair(prompt, good, bad, [LOOK]), Judged(prompt, good, True, [LOOK]), Problem(prompt, {}, [LOOK])):
        assert row.check() == ()
