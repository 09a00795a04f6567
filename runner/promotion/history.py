"""The moves of an alias: who has had it since when and why, and where going back leads. Pure."""

from collections.abc import Sequence

import msgspec


class Move(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An alias given to a version, in place of another one; `at` is in seconds since 1970."""

    at: float
    version: str
    instead_of: str = ""
    back: bool = False
    why: str = ""


def before(moves: Sequence[Move], holder: str) -> str | None:
    """Return the version that had the alias before its holder, None where there is none.

    Going back twice leads two promotions back, and not to where one has just come from.
    """
    had: list[str] = []
    for move in moves:
        # Going back unwinds: what came after is no longer on the way.
        if move.back and move.version in had:
            had = had[: had.index(move.version) + 1]
        else:
            # What is promoted once more is the latest; its earlier place is no step on the way back.
            had = [*(each for each in had if each != move.version), move.version]
    # Somebody may have moved the alias by other means: what the moves say last is then what was before.
    had = had[: had.index(holder)] if holder in had else had
    return had[-1] if had else None
