"""Preference pairs as Microsoft Foundry and OpenAI take them.

Source: https://platform.openai.com/docs/guides/direct-preference-optimization
"""

import msgspec

from runner.data.formats import Format
from runner.data.kinds.preference import Pair
from runner.data.rows import Message, Tools


class Input(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """What both answers reply to."""

    messages: tuple[Message, ...]
    tools: Tools | None = None
    parallel_tool_calls: bool | None = None


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file."""

    input: Input
    preferred_output: tuple[Message, ...]
    non_preferred_output: tuple[Message, ...]


def to_row(raw: Raw) -> Pair:
    """Rename the parts."""
    given = raw.input
    return Pair(given.messages, raw.preferred_output, raw.non_preferred_output, given.tools, given.parallel_tool_calls)


FORMAT = Format("foundry", "preference", Raw, to_row)
