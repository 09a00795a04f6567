"""What a format is: the shape people have their rows in, and how it becomes ours. One file a format.

A new format is a file here that ends in `FORMAT = Format(...)`. Its `raw` type declares the keys that are
read, the required ones without a default: a row is recognised by having them. It forbids unknown keys, so that
these are seen (unread_keys.py); values of a wrong type are refused. A `raw` that is a `dict` reads every key, and is
recognised by none (problem.py). Its `to_row` may raise `BadRow`. No other file lists the formats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import msgspec

from runner.data import kinds
from runner.data.reading.content_parts import join_parts, list_tools
from runner.data.reading.image_values import place_images
from runner.data.reading.unknown_keys import fit
from runner.data.rows import BadRow, Message, Role, Row
from runner.errors import DataError

Text = str | tuple[Message, ...]
"""What many formats allow for a prompt or an answer: plain text, or turns."""
ToRow = Callable[[Any], Row]
"""Makes a row of what a line holds: of a format's own `raw` type, which no other module knows."""
TRANSCRIPT_ENDS = ("Assistant:", "Assistant: ", "Assistant:\n")


@dataclass(frozen=True)
class Format:
    """A shape of rows; `name` is what `dataset.format` takes, the name of the file."""

    name: str
    kind: str
    """The kind of its rows, a file of `runner/data/kinds/`."""
    raw: type[msgspec.Struct] | type[dict[str, Any]]
    to_row: ToRow
    one_of: tuple[str, ...] = ()
    """Keys of which a row of this format must have one, in addition to `keys`."""

    def has_its_keys(self, sample: Mapping[str, object]) -> bool:
        """Say whether a row has the keys by which the format is recognised."""
        alternative = not self.one_of or not sample.keys().isdisjoint(self.one_of)
        return bool(self.keys or self.one_of) and sample.keys() >= set(self.keys) and alternative

    @property
    def recognised_by(self) -> str:
        """The keys by which it is recognised, in words; empty where it is not."""
        return ", ".join([*self.keys, *([" or ".join(self.one_of)] if self.one_of else [])])

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys a row of this format must have."""
        return tuple(each.encode_name for each in self._fields if each.required)

    @cached_property
    def all_keys(self) -> tuple[str, ...]:
        """The keys a row of this format may have."""
        return tuple(each.encode_name for each in self._fields)

    @property
    def _fields(self) -> tuple[msgspec.structs.FieldInfo, ...]:
        return msgspec.structs.fields(self.raw) if issubclass(self.raw, msgspec.Struct) else ()


@cache
def formats() -> Mapping[str, Format]:
    """Return all formats by name."""
    names = [module.name for module in iter_modules(__path__)]
    return {name: import_module(f"{__name__}.{name}").FORMAT for name in names}


def named(name: str) -> Format:
    """Return the format of that name. Raises `DataError` if there is none."""
    known = formats()
    if name not in known:
        close = get_close_matches(name, known, 1)
        meant = f"did you mean '{close[0]}'? " if close else ""
        raise DataError(f"dataset.format: got {name!r}; {meant}allowed: auto, {', '.join(known)}.")
    return known[name]


def recognise(sample: Mapping[str, object], kind: str = "") -> list[Format]:
    """Return the formats a row may be of: those it has most keys of and, if several, whose types it fits.

    Formats of a kind that is recognised only where it is wanted come first for `kind`, but for rows that hold several
    of it, and are none for others.
    """
    complete = [each for each in recognised_for(kind) if each.has_its_keys(sample)]
    own = [each for each in complete if kinds.load(each.kind).only_where_wanted]
    # A pair with a label is a pair: which of its answers is the good one, it says itself.
    if own and not any(each.kind in kinds.load(kind).split_of for each in complete):
        return own
    # Of `chosen` and `rejected` alone, and with `prompt`, the latter says more: it is the format with most keys.
    most = max((len(each.keys) for each in complete), default=0)
    likely = [each for each in complete if len(each.keys) == most]
    return likely if len(likely) == 1 else [each for each in likely if _fits(sample, each)]


def recognised_for(kind: str) -> list[Format]:
    """Return the formats that rows may be of for a method that learns from rows of a kind."""
    # The label of a classification task is no judgement: only a method that learns from judgements sees one in it.
    found = [each for each in formats().values() if each.recognised_by]
    return [each for each in found if each.kind == kind or not kinds.load(each.kind).only_where_wanted]


def turns(role: Role, text: Text) -> tuple[Message, ...]:
    """Return text as one turn of that role; turns stay as they are."""
    return (Message(role, text),) if isinstance(text, str) else text


def prompt_turns(prompt: Text) -> tuple[Message, ...]:
    """Return a prompt's text as one turn of the user; turns stay as they are.

    Raises `BadRow` for the transcript of a conversation up to where the assistant speaks.
    """
    # Anthropic's transcripts in TRL's keys: the roles in the text would be learned as words.
    if isinstance(prompt, str) and prompt.endswith(TRANSCRIPT_ENDS) and prompt.lstrip().startswith("Human:"):
        raise BadRow(
            "transcript-prompt",
            "`prompt` is a transcript, from 'Human:' to 'Assistant:', which would be learned as one turn of the user; "
            "give its turns as messages (`role`, `content`), or put it before both answers and leave `prompt` out "
            "(format hh_rlhf)",
        )
    return turns("user", prompt)


def _fits(sample: Mapping[str, object], format: Format) -> bool:
    try:
        # Where images are matters here, and not what they are.
        fit(join_parts(place_images(list_tools(sample), lambda image: "https://image")), format.raw)
    except ValueError:
        return False
    return True
