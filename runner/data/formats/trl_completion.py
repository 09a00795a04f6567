"""TRL's prompt-completion rows, as text or as messages: only the completion is learned.

Source: https://huggingface.co/docs/trl/dataset_formats#prompt-completion
"""

import msgspec

from runner.data.formats import Format, Text, prompt_turns, turns
from runner.data.kinds.conversation import Conversation
from runner.data.rows import Message, Tools


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file."""

    prompt: Text
    completion: Text
    tools: Tools | None = None


def to_row(raw: Raw) -> Conversation:
    """Join both; the assistant's turns in the prompt get weight 0."""
    # A turn of the assistant in the prompt is an example, which TRL does not learn either.
    prompt = tuple(map(_unlearned, prompt_turns(raw.prompt)))
    return Conversation(prompt + turns("assistant", raw.completion), raw.tools)


def _unlearned(turn: Message) -> Message:
    return msgspec.structs.replace(turn, weight=0) if turn.role == "assistant" else turn


FORMAT = Format("trl_completion", "conversation", Raw, to_row)
