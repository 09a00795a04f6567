"""Calls of tools that do not fit what is around them: each is legal JSON, and something else than was meant.

OpenAI and Foundry refuse a conversation in which a call has no answer, after the file was sent; a model that learns to
call a tool that it does not know calls others, too.
Source: https://platform.openai.com/docs/guides/function-calling
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile

from runner.data.json_value import Json
from runner.data.quoting import shown
from runner.data.rows import Message, Oddity, Tools, Turns


def check_calls(conversations: Sequence[Turns], tools: Tools | None) -> tuple[Oddity, ...]:
    """Return what is odd about the calls in conversations of one row, once each; calls of the last turn may be open."""
    found = (odd for turns in conversations for odd in _odd_calls(turns, tools))
    return tuple(dict.fromkeys(found))  # the conversations of a pair begin alike


def _odd_calls(turns: Turns, tools: Tools | None) -> Iterator[Oddity]:
    declared = {_name(each) for each in tools or ()}
    open_ids: set[str | None] = set()
    for place, turn in enumerate(turns):
        if turn.role == "tool":
            if turn.tool_call_id is not None and turn.tool_call_id not in open_ids:
                yield Oddity(
                    "unknown-call",
                    f"turn {place + 1} answers the call {shown(repr(turn.tool_call_id))}, which the assistant has not "
                    "just made; correct `tool_call_id`, or remove the turn",
                )
            continue
        calls = (turn.tool_calls or ()) if turn.role == "assistant" else ()
        open_ids = set(map(_id, calls))
        yield from _undeclared(calls, place, declared)
        if calls and place + 1 < len(turns):
            answers = list(takewhile(lambda each: each.role == "tool", turns[place + 1 :]))
            yield from _unanswered(calls, answers, place)


def _undeclared(calls: Sequence[dict[str, Json]], place: int, declared: set[str | None]) -> Iterator[Oddity]:
    for name in dict.fromkeys(map(_name, calls)):
        if name is not None and name not in declared:
            names = ", ".join(sorted(f"`{shown(each)}`" for each in declared if each)) or "none"
            yield Oddity(
                "undeclared-call",
                f"turn {place + 1} calls `{shown(name)}`, which the row does not declare (its `tools`: {names}); "
                "declare it, or correct the name",
            )


def _unanswered(calls: Sequence[dict[str, Json]], answers: Sequence[Message], place: int) -> Iterator[Oddity]:
    # Without ids, as many data sets have them, answers are in the order of the calls.
    answered = {each.tool_call_id for each in answers}
    open_calls = calls[len(answers) :] if answered <= {None} else [each for each in calls if _id(each) not in answered]
    for call in open_calls:
        yield Oddity(
            "unanswered-call",
            f"the call of `{shown(str(_name(call)))}` in turn {place + 1} has no answer of a tool, without which "
            "services refuse the row; add the tool's turn, or leave the call out",
        )


def _name(value: dict[str, Json]) -> str | None:
    """Return the name of a tool or a call, in OpenAI's form or without its `function`; None where there is none."""
    function = value.get("function")
    return _text((function if isinstance(function, dict) else value).get("name"))


def _id(call: dict[str, Json]) -> str | None:
    """Return the id of a call; None where it has none, as in many data sets."""
    return _text(call.get("id"))


def _text(value: Json) -> str | None:
    # Calls and tools are carried through as they are: anything may be in the place of a name.
    return value if isinstance(value, str) else None
