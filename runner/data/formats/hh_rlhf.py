r"""Anthropic's hh-rlhf: two transcripts that begin alike, their turns after `\n\nHuman:` and `\n\nAssistant:`.

Source: https://github.com/anthropics/hh-rlhf
"""

import re

import msgspec

from runner.data.formats import Format
from runner.data.formats.trl_implicit import pair_of
from runner.data.kinds.preference import Pair
from runner.data.rows import BadRow, Message, Role

SPEAKER = re.compile(r"\n\n(Human|Assistant):")
ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file."""

    chosen: str
    rejected: str


def to_row(raw: Raw) -> Pair:
    """Cut both transcripts into turns, and take what both share for the prompt."""
    return pair_of(turns(raw.chosen), turns(raw.rejected))


def turns(transcript: str) -> tuple[Message, ...]:
    """Return a transcript's turns, without the blanks around them.

    Raises `BadRow` if it does not begin with a speaker.
    """
    # With a group in the pattern, `split` gives the speakers between the texts.
    before, *parts = SPEAKER.split(transcript)
    if before.strip() or not parts:
        raise BadRow(
            "no-transcript",
            f"the text begins with {before[:30]!r}; a transcript begins with '\\n\\nHuman:'; "
            "give the prompt in a key of its own (`prompt`, `chosen`, `rejected`)",
        )
    speakers, texts = parts[::2], parts[1::2]
    return tuple(Message(ROLES[who], text.strip()) for who, text in zip(speakers, texts, strict=True))


FORMAT = Format("hh_rlhf", "preference", Raw, to_row)
