"""ShareGPT conversations with a `chosen` and a `rejected` last turn.

Source: https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md#preference-dataset-1
"""

import msgspec

from runner.data.formats import Format
from runner.data.formats.sharegpt import Turn, messages, tools
from runner.data.kinds.preference import Pair
from runner.data.rows import Tools


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file."""

    conversations: tuple[Turn, ...]
    chosen: Turn
    rejected: Turn
    system: str | None = None
    tools: Tools | str | None = None


def to_row(raw: Raw) -> Pair:
    """Translate the speakers; `system` goes first."""
    prompt = messages(raw.system, *raw.conversations)
    return Pair(prompt, messages(None, raw.chosen), messages(None, raw.rejected), tools(raw.tools))


FORMAT = Format("sharegpt_preference", "preference", Raw, to_row)
