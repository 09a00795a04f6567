"""What makes a row one that cannot be trained on: pure functions that pass it, or say why not.

Each raises `BadRow` with a sentence made of what was found, what is allowed, and the fix. Rows come here
decoded: types and texts are as `rows.py` declares them.
"""

from collections.abc import Callable
from functools import lru_cache

from runner.data.rows import BadRow, Conversation, Kind, Message, Oddity, Pair

SYSTEM_ROLES = ("system", "developer")


def check_pair(pair: Pair) -> tuple[Oddity, ...]:
    """Raise `BadRow` unless the pair has a prompt that asks for an answer, and two different answers.

    Return what is odd about the order of its turns.
    """
    prompt = pair.prompt
    if not prompt or not has_text(prompt[-1]):
        raise BadRow(
            "no-prompt", "the prompt is empty; a pair needs a question that both answers reply to; add it"
        )
    oddities = check_order(tuple([message.role for message in prompt]))
    if prompt[-1].role not in ("user", "tool"):
        raise BadRow(
            "role-order",
            f"the prompt ends with the {prompt[-1].role}'s turn; it must end with the user's (or a tool's); "
            "move that turn into both answers or remove it",
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
    """Raise `BadRow` unless an answer of a pair is the assistant's, from its first turn to its last, with text."""
    if not answer:
        raise BadRow(
            "empty-answer", f"the {which} answer has no message; it needs one of the assistant's; add it"
        )
    for place in (0, -1):
        if answer[place].role != "assistant":
            raise BadRow(
                "role-order",
                f"the {which} answer {'begins' if place == 0 else 'ends'} with the {answer[place].role}'s turn; "
                "only the assistant's is allowed there; move the turns before it into the prompt",
            )
    if len(answer) > 1 and (strange := {turn.role for turn in answer} - {"assistant", "tool"}):
        raise BadRow(
            "role-order",
            f"the {which} answer has a turn of the {min(strange)}; only the assistant's and tools' are allowed; "
            "move what both answers share into the prompt",
        )
    if not has_text(answer[-1]):
        raise BadRow(
            "empty-answer", f"the {which} answer is empty; text is needed; write it or remove the row"
        )


def check_conversation(conversation: Conversation) -> tuple[Oddity, ...]:
    """Raise `BadRow` unless the conversation has something to learn: an answer of the assistant's to a prompt.

    Return what is odd about the order of its turns.
    """
    messages = conversation.messages
    if not messages:
        raise BadRow("no-prompt", "there are no messages; a user's and an assistant's are needed; add them")
    oddities = check_order(tuple([message.role for message in messages]))
    if messages[-1].role != "assistant":
        raise BadRow(
            "last-turn",
            f"the last turn is the {messages[-1].role}'s; it must be the assistant's; add the answer",
        )
    learned = [turn for turn in messages if turn.role == "assistant" and turn.weight != 0]
    if not learned:
        raise BadRow(
            "nothing-to-learn",
            "every assistant turn has weight 0; one at least needs weight 1; set it or remove the row",
        )
    for turn in learned:
        if not has_text(turn) and not turn.tool_calls:
            raise BadRow(
                "empty-answer", "an answer is empty; text is needed; write it or set its weight to 0"
            )
    return oddities


def has_text(message: Message) -> bool:
    """Say whether a message has any text but blanks."""
    return bool(message.content) and not message.content.isspace()  # type: ignore[union-attr]


@lru_cache(maxsize=4096)
def check_order(roles: tuple[str, ...]) -> tuple[Oddity, ...]:
    """Raise `BadRow` for roles in an order that no conversation has; return what is odd about it.

    Data has few distinct orders, so each is judged once.
    """
    start = next((place for place, role in enumerate(roles) if role not in SYSTEM_ROLES), None)
    if start is None:
        raise BadRow("no-prompt", "there are only system turns; a user's turn is needed; add it")
    if roles[start] != "user":
        raise BadRow(
            "role-order",
            f"the conversation begins with the {roles[start]}'s turn; the user's must come first; add or move it",
        )
    for place in range(start + 1, len(roles)):
        if roles[place] in SYSTEM_ROLES:
            raise BadRow(
                "role-order",
                f"turn {place + 1} is a {roles[place]} turn; these are allowed at the start only; move it there",
            )
        if roles[place] == "tool" and roles[place - 1] not in ("assistant", "tool"):
            raise BadRow(
                "role-order",
                f"turn {place + 1} is a tool's after the {roles[place - 1]}'s; it must follow the assistant's call",
            )
    return tuple(
        Oddity(
            "repeated-turn", f"turns {place} and {place + 1} are both the user's; join them if they are one"
        )
        for place in range(1, len(roles))
        if roles[place - 1] == roles[place] == "user"
    )


CHECKS: dict[Kind, Callable[..., tuple[Oddity, ...]]] = {
    "preference": check_pair,
    "conversation": check_conversation,
}
