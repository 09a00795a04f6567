"""TRL's unpaired preference rows: a prompt, a completion, and a label.

Source: https://huggingface.co/docs/trl/dataset_formats#unpaired-preference
"""

import msgspec
from runner.data.kinds.judged import Judged

from runner.data.formats import Format, Text, prompt_turns, turns


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file."""

    prompt: Text
    completion: Text
    label: bool


def to_row(raw: Raw) -> Judged:
    """Return the judged answer."""
    return Judged(prompt_turns(raw.prompt), turns("assistant", raw.completion), raw.label)


FORMAT = Format("unpaired", "judged", Raw, to_row)
