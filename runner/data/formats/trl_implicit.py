"""TRL's preference rows without a prompt of their own: both answers are whole conversations that begin alike.

Source: https://huggingface.co/docs/trl/dataset_formats#preference
"""

import msgspec

from runner.data.formats import Format
from runner.data.kinds.preference import Pair
from runner.data.rows import BadRow, Message, Tools


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file."""

    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    tools: Tools | None = None


def to_row(raw: Raw) -> Pair:
    """Take what both share for the prompt."""
    return pair_of(raw.chosen, raw.rejected, raw.tools)


def pair_of(chosen: tuple[Message, ...], rejected: tuple[Message, ...], tools: Tools | None = None) -> Pair:
    """Return two conversations as a pair: the prompt is what both share, up to a turn not the assistant's.

    Raises `BadRow` for two that begin with different questions.
    """
    shared = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        shared += 1
    if not shared and [turns[0].role for turns in (chosen, rejected) if turns] == ["user", "user"]:
        raise BadRow(
            "no-prompt",
            "the two conversations begin with different turns; both answers must reply to the same; make them equal",
        )
    # Answers that begin with the same turn of the assistant: it belongs to both of them, and is learned.
    while shared and chosen[shared - 1].role == "assistant":
        shared -= 1
    return Pair(chosen[:shared], chosen[shared:], rejected[shared:], tools)


FORMAT = Format("trl_implicit", "preference", Raw, to_row)
