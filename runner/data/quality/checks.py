"""What makes a row one that cannot be trained on: pure functions that pass it, or say why not.

Each raises `BadRow` with what was found, what is allowed, and the fix, and returns what is odd but may stand.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from runner.data.rows import BadRow, Conversation, Kind, Message, Oddity, Pair, prompt_of

SYSTEM_ROLES = frozenset({"system", "developer"})


def check_pair(pair: Pair) -> tuple[Oddity, ...]:
    """Raise `BadRow` unless a pair has a prompt that asks for an answer, and two different answers."""
    prompt = pair.prompt
    if not prompt or not has_text(prompt[-1].content):
        raise BadRow("no-prompt", "the prompt is empty; both answers must reply to something; add it")
    oddities = check_order(tuple([turn.role for turn in prompt]))
    if prompt[-1].role not in ("user", "tool"):
        raise BadRow(
            "role-order",
            f"the prompt ends with a turn of the {prompt[-1].role}; it must end with the user's or a tool's; "
            "move that turn into both answers, or remove it",
        )
    check_answer("chosen", pair.chosen)
    check_answer("rejected", pair.rejected)
    if pair.chosen == pair.rejected:
        raise BadRow(
            "equal-answers",
            "the chosen and the rejected answer are equal; they must differ; change one or remove the row",
        )
    return oddities


def check_answer(which: str, answer: tuple[Message, ...]) -> None:
    """Raise `BadRow` unless an answer is the assistant's (tools may speak in between) and ends with text."""
    if not answer:
        raise BadRow("empty-answer", f"the {which} answer has no turn; it needs one of the assistant; add it")
    ends = {answer[0].role, answer[-1].role} - {"assistant"}
    if foreign := ends | {turn.role for turn in answer} - {"assistant", "tool"}:
        raise BadRow(
            "role-order",
            f"the {which} answer has a turn of the {min(foreign)} where only the assistant's is allowed; "
            "move what both answers share into the prompt, or remove it",
        )
    if not has_text(answer[-1].content):
        raise BadRow("empty-answer", f"the {which} answer is empty; it needs text; write it or remove the row")


def check_conversation(conversation: Conversation) -> tuple[Oddity, ...]:
    """Raise `BadRow` unless a conversation has something to learn: an answer to a prompt."""
    turns = conversation.messages
    if not turns:
        raise BadRow("no-prompt", "the conversation is empty; it needs a question and an answer; add them")
    oddities = check_order(tuple([turn.role for turn in turns]))
    if turns[-1].role != "assistant":
        raise BadRow(
            "last-turn",
            f"the last turn is the {turns[-1].role}'s; it must be the assistant's; add the answer",
        )
    if not any(turn.role == "user" and has_text(turn.content) for turn in prompt_of(conversation)):
        raise BadRow("no-prompt", "the user's turns are empty; the answer must reply to something; add it")
    learned = [turn for turn in turns if turn.role == "assistant" and turn.weight != 0]
    if not learned:
        raise BadRow(
            "nothing-to-learn",
            "every turn of the assistant has weight 0; one at least needs weight 1; set it or remove the row",
        )
    if not all(has_text(turn.content) or turn.tool_calls for turn in learned):
        raise BadRow("empty-answer", "an answer is empty; it needs text; write it, or set its weight to 0")
    return oddities


def has_text(content: str | None) -> bool:
    """Say whether there is anything but blanks."""
    return bool(content and not content.isspace())


@lru_cache(maxsize=4096)
def check_order(roles: tuple[str, ...]) -> tuple[Oddity, ...]:
    """Raise `BadRow` for turns in an order that no conversation has, known by the roles.

    Data has few distinct orders, so each is judged once.
    """
    start = next((place for place, role in enumerate(roles) if role not in SYSTEM_ROLES), None)
    if start is None:
        raise BadRow("no-prompt", "there are only system turns; one of the user is needed; add it")
    if roles[start] != "user":
        raise BadRow(
            "role-order",
            f"the conversation begins with a turn of the {roles[start]}; the user must come first; "
            "add what was asked, or remove that turn",
        )
    for place, (before, role) in enumerate(pairwise(roles[start:]), start + 2):
        if role in SYSTEM_ROLES:
            raise BadRow(
                "role-order",
                f"turn {place} is a {role} turn; these are allowed at the start only; move it there",
            )
        if role == "tool" and before not in ("assistant", "tool"):
            raise BadRow(
                "role-order",
                f"turn {place} is a tool's after the {before}'s; a tool replies to the assistant; "
                "add the assistant's call, or remove that turn",
            )
    return tuple(
        Oddity("repeated-turn", f"turns {place - 1} and {place} are both the user's; join them if they are one")
        for place, (before, role) in enumerate(pairwise(roles), 2)
        if before == role == "user"
    )


def is_plain_pair(pair: Pair) -> bool:
    """Say whether a pair is of the commonest sort: user and assistant in turn, then an answer of one turn each.

    `check_pair` passes all of these without oddities; this is to know in a third of the time.
    """
    before, question, prompt = "assistant", None, pair.prompt
    for turn in prompt[1:] if prompt and prompt[0].role == "system" else prompt:
        role, question = turn.role, turn.content
        if role == before or (role != "user" and role != "assistant"):
            return False
        before = role
    if before != "user" or len(pair.chosen) != 1 or len(pair.rejected) != 1:
        return False
    chosen, rejected = pair.chosen[0], pair.rejected[0]
    return (
        chosen.role == "assistant" == rejected.role
        and chosen.content != rejected.content
        and has_text(chosen.content)
        and has_text(rejected.content)
        and has_text(question)
    )


def is_plain_conversation(conversation: Conversation) -> bool:
    """Say whether a conversation is of the commonest sort: a question and an answer that is learned."""
    if len(conversation.messages) != 2:
        return False
    question, answer = conversation.messages
    return (
        question.role == "user"
        and answer.role == "assistant"
        and answer.weight != 0
        and has_text(question.content)
        and has_text(answer.content)
    )


class Checks(NamedTuple):
    """How rows of a kind are checked: `passes` knows most good ones at once, `check` judges the others."""

    passes: Callable[[Any], bool]
    check: Callable[[Any], tuple[Oddity, ...]]


CHECKS: dict[Kind, Checks] = {
    "preference": Checks(is_plain_pair, check_pair),
    "conversation": Checks(is_plain_conversation, check_conversation),
}
