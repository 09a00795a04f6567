"""Rated answers: a prompt, a completion, and a score."""

import msgspec
from runner.data.kinds.rated import Rated

from runner.data.formats import Format, Text, prompt_turns, turns


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file."""

    prompt: Text
    completion: Text
    score: float


def to_row(raw: Raw) -> Rated:
    """Return the rated answer."""
    return Rated(prompt_turns(raw.prompt), turns("assistant", raw.completion), raw.score)


FORMAT = Format("rated", "rated", Raw, to_row)
