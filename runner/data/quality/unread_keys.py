"""Keys of a row that its format does not read: ignored with a warning, or refused where that would change the meaning.

All types of rows forbid unknown keys, which costs nothing. Where a line has some, either of two ways is taken:

- Keys of the row itself are added to the type of the file's rows, as ones that are skipped: a file whose every row
  has some is read at full speed.
- Any others are removed from the decoded JSON until it fits the type, which takes five times as long.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from runner.data import kinds
from runner.data.formats import Format, ToRow
from runner.data.formats.unpaired import JUDGEMENTS, judged
from runner.data.quoting import shown
from runner.data.reading.content_parts import join_parts, list_tools
from runner.data.reading.image_values import place_images, read_image
from runner.data.reading.unknown_keys import Unread, fit, unknown_key
from runner.data.rows import BadRow, Oddity, Row

MAX_NAMED = 50
"""So many keys of a file get a warning of their own; it may hold keys that are data, another in each row."""
MEDIA = frozenset({"audio", "audios", "image", "images", "video", "videos"})
OLDER = {"functions": "tools", "function_call": "tool_calls"}
"""The hosted service's first names for tools, which are laid out differently, and those that are read."""
MEANINGFUL = MEDIA | {*JUDGEMENTS} | OLDER.keys() | {"tools"}
"""Keys whose value decides whether a row may be read without them."""
_NOTHING = (msgspec.UNSET, *map(msgspec.Raw, (b"null", b'""', b"[]", b"{}")))


class Met(NamedTuple):
    """The keys met so far in a file that its format does not read: those that are skipped, and those named in warnings.

    What is found in a block depends on them, where there are many.
    """

    skipped: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()


NOTHING_MET = Met()


class Reader:
    """Makes rows of the lines of a file, and says which of their keys the format does not read.

    `to_row` makes a row of what a line holds; `met` is what an earlier reader of the same file ended with. Images may
    be files, relative to `folder`.
    """

    def __init__(
        self, format: Format, to_row: ToRow, met: Met = NOTHING_MET, folder: Path | None = None
    ) -> None:  # fmt: skip
        self._format = format
        self._folder = folder
        self._to_row = to_row
        self._skipped = [*met.skipped]
        self._named = {*met.named}
        self._decode = self._decoder()

    @property
    def met(self) -> Met:
        """The keys met so far."""
        return Met(tuple(self._skipped), frozenset(self._named))

    def read(self, lines: Sequence[bytes]) -> tuple[list[Row], list[Unread]]:
        """Return the rows of lines, and which of their own keys are not read; quick.

        Raises `ValueError` where a line is not one of the format, or has other keys that are not read.
        """
        while True:
            try:
                if not self._skipped:
                    return list(map(self._to_row, map(self._decode, lines))), []
                raws = list(map(self._decode, lines))
                return list(map(self._to_row, raws)), list(self._unread(raws))
            except msgspec.ValidationError as error:
                if not self._skip(str(error)):
                    raise

    def read_thoroughly(self, line: bytes) -> tuple[Row, list[Unread]]:
        """Return the row of a line and which keys in it are not read, wherever they are.

        Contents may be in parts, images apart, and tools in a text. Raises `ValueError` where the line is not one of
        the format, `BadRow` where it means something else without the keys.
        """
        placed = place_images(list_tools(msgspec.json.decode(line)), partial(read_image, self._folder))
        raw, unread = fit(join_parts(placed), self._format.raw)
        for each in unread:
            _refuse(each, self._format)
        return self._to_row(raw), unread

    def warnings(self, unread: Sequence[Unread]) -> Iterator[tuple[Unread, Oddity]]:
        """Yield each key that is not read, once for a row, with the warning; after many keys all others have one."""
        first = {(each.key, bool(each.place)): each for each in reversed(unread)}
        for (key, inside), each in first.items():
            if len(self._named) < MAX_NAMED:
                self._named.add(key)
            rule = f"ignored-key {key if key in self._named else ''}{' inside' if inside else ''}"
            yield each, Oddity(rule, _ignored(each, self._format))

    def _skip(self, error: str) -> bool:
        """Skip the key that an error complains of from now on; return False where that is not possible."""
        key, place = unknown_key(error) or ("", "row")
        if place or key in MEANINGFUL or len(self._skipped) == MAX_NAMED or not _can_be_a_field(key):
            return False
        self._skipped.append(key)
        self._decode = self._decoder()
        return True

    def _decoder(self) -> Callable[[bytes], Any]:
        """Return what decodes a line, without the keys that are skipped."""
        raw = self._format.raw
        if not self._skipped:
            return msgspec.json.Decoder(raw).decode
        # msgspec.Raw: the value is skipped and kept as bytes, not decoded.
        fields = [
            (f"skipped_{number}", msgspec.Raw | msgspec.UnsetType, msgspec.field(default=msgspec.UNSET, name=key))
            for number, key in enumerate(self._skipped)
        ]
        wider = msgspec.defstruct(raw.__name__, fields, bases=(raw,), gc=False, forbid_unknown_fields=True)
        return msgspec.json.Decoder(wider).decode

    def _unread(self, raws: Sequence[msgspec.Struct]) -> Iterator[Unread]:
        for number, key in enumerate(self._skipped):
            values = map(attrgetter(f"skipped_{number}"), raws)
            lines = [place for place, value in enumerate(values) if value not in _NOTHING]
            if lines:
                yield Unread("", key, None, lines)


def _can_be_a_field(key: str) -> bool:
    """Say whether msgspec takes a key for a field's name: it has nothing that JSON escapes."""
    return msgspec.json.encode(key) == f'"{key}"'.encode()


def _ignored(unread: Unread, format: Format) -> str:
    key = shown(unread.key)
    if unread.place:
        return (
            f"the key `{key}` of `{unread.place}` is ignored, as format {format.name} does not read it; "
            "remove it, or move what is to be learned into a key that is read"
        )
    keys = ", ".join(format.all_keys)
    return (
        f"the key `{key}` is ignored; format {format.name} reads {keys}; remove it, or rename it if it is one of these"
    )


def _refuse(unread: Unread, format: Format) -> None:
    """Raise `BadRow` where a row without the key would mean something else."""
    key, of = unread.key, f" of `{unread.place}`" if unread.place else ""
    if key in MEDIA:
        raise BadRow(
            "not-text",
            f"the key `{key}`{of} holds what is not text; only text is learned; leave the row or the key out",
        )
    if key in OLDER:
        raise BadRow(
            "older-tools",
            f"the key `{key}`{of} is the older way to write `{OLDER[key]}`, which is read; write it as `{OLDER[key]}`, "
            "or leave the row out",
        )
    if key == "tools" and not of:
        raise BadRow(
            "unread-tools",
            f"the key `tools` is not read in format {format.name}; give the rows in format chat or trl, "
            "or leave the key out",
        )
    judges = key in JUDGEMENTS and not of and judged(unread.value) is not None
    if judges and kinds.load(format.kind).every_answer_is_good:
        raise BadRow(
            "unpaired-judgement",
            f"the key `{key}` ({unread.value}) judges the answer: these are unpaired judgements, from which method=kto "
            "learns; method=sft would learn the bad answers, too, and other methods would not read the judgement; use "
            "method=kto, or keep the rows with good answers and leave the key out",
        )
