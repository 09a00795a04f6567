"""A data shape in one file: `{"question": …, "best": …, "worst": …}`.

python -m runner dataset=files dataset.train=ratings.jsonl
"""

import msgspec

from runner.data.formats import Format, turns
from runner.data.kinds.preference import Pair


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file; it is recognised by these keys."""

    question: str
    best: str
    worst: str


def to_row(raw: Raw) -> Pair:
    """Return the pair."""
    return Pair(turns("user", raw.question), turns("assistant", raw.best), turns("assistant", raw.worst))


FORMAT = Format("best_worst", "preference", Raw, to_row)
