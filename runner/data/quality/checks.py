"""The rules that rows of several kinds are checked by: pure functions that pass turns, or say why not.

Each raises `BadRow` with what was found, what is allowed, and the fix, and returns what is odd but allowed.
"""

from functools import lru_cache
from itertools import pairwise

from runner.data.rows import BadRow, Message, Oddity, Turns

SYSTEM_ROLES = frozenset({"system", "developer"})


def check_answer(which: str, answer: Turns) -> None:
    """Raise `BadRow` unless an answer is the assistant's (tools may speak in between) and ends with text or a call."""
    if not answer:
        raise BadRow("empty-answer", f"the {which} answer has no turn; it needs one of the assistant; add it")
    ends = {answer[0].role, answer[-1].role} - {"assistant"}
    if foreign := ends | {turn.role for turn in answer} - {"assistant", "tool"}:
        raise BadRow(
            "role-order",
            f"the {which} answer has a turn of the {min(foreign)} where only the assistant's is allowed; "
            "move what both answers share into the prompt, or remove it",
        )
    if not has_text(answer[-1].content) and not answer[-1].tool_calls:
        raise BadRow("empty-answer", f"the {which} answer is empty; it needs text; write it or remove the row")
    if all(turn.weight == 0 for turn in answer if turn.role == "assistant"):
        raise BadRow(
            "nothing-to-learn",
            f"every turn of the {which} answer has weight 0; one at least needs weight 1; set it or remove the row",
        )


def has_text(content: str | None) -> bool:
    """Say whether there is anything but blanks."""
    return bool(content and not content.isspace())


def asks(turn: Message) -> bool:
    """Say whether a turn can be replied to: it has text, or an image, or is what a tool returned, be it nothing."""
    return has_text(turn.content) or bool(turn.images) or turn.role == "tool"


# Bounded, as a hostile file may have another order in each row.
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
