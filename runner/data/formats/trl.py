"""TRL's preference rows with an explicit prompt, as text or as messages.

Answers that repeat the prompt's turns before their own, as in UltraFeedback, are relieved of them.
Source: https://huggingface.co/docs/trl/dataset_formats#preference
"""

import msgspec

from runner.data.formats import Format, Text, prompt_turns, turns
from runner.data.kinds.preference import Pair
from runner.data.rows import Tools


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file."""

    prompt: Text
    chosen: Text
    rejected: Text
    tools: Tools | None = None


def to_row(raw: Raw) -> Pair:
    """Make turns of texts: a prompt is the user's, an answer the assistant's."""
    prompt = prompt_turns(raw.prompt)
    chosen, rejected = turns("assistant", raw.chosen), turns("assistant", raw.rejected)
    # UltraFeedback's rows have the prompt in all three keys.
    given = len(prompt)
    if chosen[:given] == prompt == rejected[:given]:
        chosen, rejected = chosen[given:], rejected[given:]
    return Pair(prompt, chosen, rejected, raw.tools)


FORMAT = Format("trl", "preference", Raw, to_row)
