"""A row: what every data format becomes, of one of the kinds in `kinds/` (a pair, a conversation, a problem).

A row's identity is the sha256 of its canonical bytes, so that the same content has the same identity in
whatever format it came: files are fingerprinted, duplicates found, splits made and held-out rows matched
across runs by it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Self

import msgspec

from runner.data import images
from runner.data.images import Image
from runner.data.json_value import Json

Role = Literal["system", "developer", "user", "assistant", "tool"]


class BadRow(ValueError):
    """A row that cannot be trained on: the rule it breaks, and what was found; what is allowed; the fix."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


class Oddity(NamedTuple):
    """Something in a row that may be meant, but seldom is: the rule, and what was found; what to do."""

    rule: str
    message: str


class Message(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """One turn. `weight: 0` leaves an assistant turn out of the loss; tool fields are carried through.

    `content` is its text alone; `images` are at their places in it.
    """

    role: Role
    content: str | None = None
    name: str | None = None
    weight: Literal[0, 1] | None = None
    tool_calls: list[dict[str, Json]] | None = None
    tool_call_id: str | None = None
    images: tuple[Image, ...] | None = msgspec.field(default=None, name=images.KEY)

    @property
    def parts(self) -> Json:
        """Its content as services take it: a text, or where it has images a list of parts; None where it has none."""
        return images.parts(self.content or "", self.images) if self.images else self.content

    @property
    def shown(self) -> str:
        """Its text for people, with `[image]` where each image is."""
        return images.marked(self.content or "", self.images or ())


Turns = tuple[Message, ...]
Tools = list[dict[str, Json]]
"""Tools that a model may call, each as the service's JSON describes it; carried through as they are."""


class Prompt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model is asked: the turns so far, and the tools that it may call."""

    turns: Turns
    tools: Tools | None = None


class Learned(NamedTuple):
    """A conversation as a model sees it, and which of its turns are learned: from a turn up to, not including, one."""

    messages: Turns
    spans: tuple[tuple[int, int], ...]


class Text(NamedTuple):
    """A text of a row: where in the row it is, and whether it is learned as an answer."""

    place: str
    text: str
    is_answer: bool


# gc=False: rows hold texts and tuples of turns, and never each other, so that the collector need not follow them:
# https://jcristharif.com/msgspec/structs.html#disabling-garbage-collection-advanced
class Row(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A row of some kind. A new kind is a subclass in a file of `kinds/`, and says all of what follows."""

    label: ClassVar[str]
    """What rows of the kind are called in messages, in the plural."""
    format: ClassVar[str] = ""
    """The format in which files are read for rows of the kind, whatever their shape; empty where it is recognised."""
    every_answer_is_good: ClassVar[bool] = False
    """Whether all answers are imitated, so that a judgement next to them changes what a row means."""
    only_where_wanted: ClassVar[bool] = False
    """Whether its formats are recognised for methods that learn from it only; others read such rows as their own."""
    sides: ClassVar[Mapping[bytes, str]] = {}
    """What each of two sorts of answers has in its canonical line, where a method learns from their difference."""
    split_of: ClassVar[frozenset[str]] = frozenset()
    """The kinds whose rows hold several of this one (`parts`)."""

    @classmethod
    def of(cls, row: "Row") -> Self | None:
        """Return a row of another kind as one of this kind; None where that cannot be."""
        return row if isinstance(row, cls) else None

    @classmethod
    def parts(cls, row: "Row") -> Sequence[Self]:
        """Return the rows of this kind that a row of another kind holds, such as both answers of a pair."""
        found = cls.of(row)
        return () if found is None else (found,)

    @property
    def tools(self) -> Tools | None:
        """The tools that the row declares."""
        raise NotImplementedError

    @property
    def question(self) -> Turns:
        """The prompt: what the (last) answer replies to."""
        raise NotImplementedError

    @property
    def answer(self) -> Turns:
        """The turns that follow the prompt, of several answers the good one; none where the row has no answer."""
        raise NotImplementedError

    @classmethod
    def columns(cls, rows: Sequence[Self]) -> tuple[list[Turns], list[Turns]]:
        """Return the prompts of rows of this kind, and their answers; a kind may know a quicker way."""
        return [row.question for row in rows], [row.answer for row in rows]

    def learned(self) -> Sequence[Learned]:
        """Return each conversation that is learned from; several have their first turns in common."""
        raise NotImplementedError

    def targets(self) -> tuple[float, ...]:
        """Return the numbers that a loss needs of a row in addition to its tokens, such as 1 for a good answer.

        They reach it as `Scores.targets`; most kinds have none.
        """
        return ()

    def texts(self) -> Iterator[Text]:
        """Yield each text."""
        raise NotImplementedError

    def is_plain(self) -> bool:
        """Say whether the row is of the commonest sort, which `check` passes without oddities; quick."""
        return False

    def check(self) -> tuple[Oddity, ...]:
        """Return what is odd but allowed; raise `BadRow` where there is nothing to learn."""
        raise NotImplementedError

    def wire(self) -> object:
        """Return what a hosted service takes for the row, to be encoded as JSON; keys within tools keep their order."""
        return self

    def fields(self) -> dict[str, Json]:
        """Return what a grader may compare an answer with, by name: `reference` is the good answer."""
        return {}


def numbered(turns: Turns) -> Iterator[tuple[int, str]]:
    """Yield the text of each turn that has one, with the turn's number from 1."""
    return ((number, each.content) for number, each in enumerate(turns, 1) if isinstance(each.content, str))


def on_the_wire(turns: Turns) -> object:
    """Return turns as services take them, to be encoded as JSON: images are parts of the content."""
    # The turns themselves in most rows: msgspec encodes them several times as fast as dictionaries.
    if not any(turn.images for turn in turns):
        return turns
    return [_with_parts(turn) for turn in turns]


def _with_parts(turn: Message) -> dict[str, Json]:
    values: dict[str, Json] = msgspec.to_builtins(turn)
    values.pop(images.KEY, None)
    return {"role": turn.role, "content": turn.parts} | {
        key: values[key] for key in values if key not in ("role", "content")
    }


def text_of(turns: Turns) -> str:
    """Return the text of the last turn; empty where there is none."""
    return (turns[-1].content or "") if turns else ""


# Keys within tools are sorted, too; those of a row are in the order of its fields. Absent ones are left out
# (omit_defaults), so that a field which a later version adds changes no row's identity.
_encoder = msgspec.json.Encoder(order="deterministic")


def canonical(value: Row | Turns) -> bytes:
    """Return the canonical bytes of a row or some turns: one line of JSON, without absent fields."""
    return _encoder.encode(value)


def canonical_lines(rows: Sequence[Row]) -> bytes:
    """Return the canonical bytes of rows, each followed by LF."""
    return _encoder.encode_lines(rows)


def canonical_each(values: Iterable[Row | Turns]) -> list[bytes]:
    """Return the canonical bytes of each row, or of the turns of each."""
    return list(map(_encoder.encode, values))  # a call of `canonical` for each takes a quarter longer


IMAGES = f'"{images.KEY}":'.encode()
"""What is in the canonical line of each row with images, and of some others."""


def holds_images(lines: bytes) -> bool:
    """Say whether a row holds images, by its canonical line; of several lines, whether one does."""
    # A single byte is found twenty times as fast as several, and few texts have an underscore.
    return b"_" in lines and IMAGES in lines


# Inside a text, quotation marks have a backslash.
_TOOLS = re.compile(rb'(?<!\\)"tool(s|_calls|_call_id)?"')


def uses_tools(line: bytes) -> bool:
    """Say whether a row declares, calls or answers tools, by its canonical line."""
    return _TOOLS.search(line) is not None


_CALLS = re.compile(rb'(?<!\\)"tool_call(s|_id)":')


def calls_tools(lines: bytes) -> bool:
    """Say whether a row calls or answers tools, by its canonical line; of several lines, whether one does."""
    return b"_" in lines and b'"tool_call' in lines and _CALLS.search(lines) is not None


_in_order = msgspec.json.Encoder()


def lines_in_order(rows: Sequence[Row]) -> bytes:
    """Return the canonical lines, but of rows that use tools the keys in the order in which the file has them.

    Chat templates write tools and arguments key by key as they come, so that another order is another text.
    """
    lines = canonical_lines(rows)
    if b'"too' not in lines:
        return lines
    return b"".join(
        (_in_order.encode(row) if uses_tools(line) else line) + b"\n"
        for row, line in zip(rows, lines.splitlines(), strict=True)
    )


def row_id(row: Row) -> bytes:
    """Return the 32-byte identity of a row: the sha256 of its canonical bytes."""
    return hashlib.sha256(canonical(row)).digest()
