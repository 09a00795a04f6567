"""Alpaca's instruction rows.

Source: https://github.com/tatsu-lab/stanford_alpaca#data-release, with the `system` and `history` of
https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md#alpaca-format
"""

import msgspec

from runner.data.formats import Format
from runner.data.kinds.conversation import Conversation
from runner.data.rows import Message


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file; `history` is a list of [instruction, answer]."""

    instruction: str
    output: str
    input: str | None = None
    system: str | None = None
    history: tuple[tuple[str, str], ...] | None = None


def to_row(raw: Raw) -> Conversation:
    """Return the conversation that ends with `output`."""
    asked = prompt(raw.system, raw.history, raw.instruction, raw.input)
    return Conversation((*asked, Message("assistant", raw.output)))


def prompt(
    system: str | None, history: tuple[tuple[str, str], ...] | None, instruction: str, input: str | None
) -> tuple[Message, ...]:
    """Return the turns before the answer: instruction and input make one user turn, a line apart."""
    before = [Message("system", system)] if system else []
    for asked, answered in history or ():
        before += [Message("user", asked), Message("assistant", answered)]
    # Without Stanford's `### Instruction:` frame: the chat template of the model marks the turns.
    return (*before, Message("user", f"{instruction}\n{input}" if input else instruction))


FORMAT = Format("alpaca", "conversation", Raw, to_row)
