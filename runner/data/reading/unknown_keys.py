"""Decoded JSON as a type that forbids unknown keys: these are taken out, and returned."""

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import msgspec

T = TypeVar("T")
# msgspec names the first unknown key that it meets, in its message only.
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*?)`(?: - at `\$\.?(?P<place>.*)`)?", re.DOTALL)
_STEP = re.compile(r"[^.\[\]]+")


class Unread(NamedTuple):
    """A key with a value that is not read: where it is ("" for the row itself), and in which of the lines."""

    place: str
    key: str
    value: object
    lines: Sequence[int]


def unknown_key(error: str) -> tuple[str, str] | None:
    """Return the key that msgspec complains of as unknown, and its place; None where it complains of something else."""
    found = _UNKNOWN.fullmatch(error)
    return (found["key"], found["place"] or "") if found else None


def fit(value: object, raw: type[T]) -> tuple[T, list[Unread]]:
    """Return decoded JSON as a type, without the keys that it does not have, and these where they hold something.

    Raises `ValueError` where it does not fit for another reason. `value` loses those keys.
    """
    unread: list[Unread] = []
    # One key a turn, in all items of a list at once: a row has few kinds of unknown keys, and may have many
    # messages.
    while True:
        try:
            return msgspec.convert(value, raw), unread
        except msgspec.ValidationError as error:
            key, place = unknown_key(str(error)) or ("", "")
            holders = [(where, each) for where, each in _around(value, place) if isinstance(each, dict) and key in each]
            if not holders:
                raise
            held = [Unread(where, key, each.pop(key), (0,)) for where, each in holders]
            # null, "" and empty lists say nothing that could be missed; writers of tables fill rows up with them.
            unread += [each for each in held if each.value not in (None, "", [], {})]


def _around(value: object, place: str) -> list[tuple[str, object]]:
    """Return what is at a place, or, where that is in a list, all that is in it; each with its own place."""
    if not place.endswith("]"):
        return [(place, _at(value, place))]
    listed = place[: place.rindex("[")]
    items = _at(value, listed)
    return [(f"{listed}[{number}]", each) for number, each in enumerate(items)] if isinstance(items, list) else []


def _at(value: object, place: str) -> object:
    """Return what is at a place such as `input.messages[1]`, None where there is no such place."""
    for step in _STEP.findall(place):
        try:
            if isinstance(value, list):
                value = value[int(step)]
            elif isinstance(value, dict):
                value = value[step]
            else:
                return None
        except (LookupError, ValueError):
            return None
    return value
