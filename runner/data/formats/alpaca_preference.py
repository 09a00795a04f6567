"""Alpaca's instruction rows with a `chosen` and a `rejected` answer.

Source: https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md#preference-dataset
"""

import msgspec

from runner.data.formats import Format
from runner.data.formats.alpaca import prompt
from runner.data.kinds.preference import Pair
from runner.data.rows import Message


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file; `history` is a list of [instruction, answer]."""

    instruction: str
    chosen: str
    rejected: str
    input: str | None = None
    system: str | None = None
    history: tuple[tuple[str, str], ...] | None = None


def to_row(raw: Raw) -> Pair:
    """Return instruction, input and what went before as the prompt."""
    asked = prompt(raw.system, raw.history, raw.instruction, raw.input)
    return Pair(asked, (Message("assistant", raw.chosen),), (Message("assistant", raw.rejected),))


FORMAT = Format("alpaca_preference", "preference", Raw, to_row)
