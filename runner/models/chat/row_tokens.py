"""Where a row's answers begin and end among its tokens, found by what the chat template writes.

An answer begins where the tokens of prompt and prompt + answer part, as TRL does it: a tokenizer may join the end of
a prompt and the beginning of an answer into one token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, Self

from runner.data.rows import Message, Row, Tools
from runner.errors import DataError
from runner.models.chat.image_tokens import PlacedImage, images_among
from runner.models.chat.tool_calls import called


@dataclass(frozen=True)
class TokenRow:
    """A row's token ids: what is read (`prompt`) and what is learned after it (`answers`).

    A pair has two answers that share the prompt. A conversation has one, and `learned` says of each of
    its tokens whether it is the assistant's own.
    """

    prompt: list[int]
    answers: tuple[list[int], ...]
    learned: tuple[list[bool], ...]
    images: tuple[PlacedImage, ...] = ()
    """Among the tokens of the prompt and, in a conversation, of the answer behind it."""

    @classmethod
    def answered(cls, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> Self:
        """Return a prompt with answers of which every token is learned."""
        learned = tuple([True] * len(each) for each in answers)
        return cls(list(prompt), tuple(list(each) for each in answers), learned, images_among(prompt))


class Render(Protocol):
    """A chat template: `ChatTokenizer.render`."""

    def __call__(
        self, messages: Sequence[Message], answer_next: bool = False, tools: Tools | None = None
    ) -> str: ...  # fmt: skip


class RewrittenError(DataError):
    """The template writes earlier turns otherwise once others follow."""


class Turn(NamedTuple):
    """A learned turn: its number from 1, the text before it, and that with it, None where it is the last one."""

    number: int
    before: str
    through: str | None


class Rendered(NamedTuple):
    """A conversation as text, and of each turn that is learned where it begins and ends."""

    whole: str
    turns: list[Turn]

    @property
    def texts(self) -> Iterator[str]:
        """All texts whose tokens are needed."""
        yield self.whole
        yield from (text for turn in self.turns for text in turn[1:] if text is not None)


def prompt_text(row: Row, render: Render) -> str:
    """Return the text before the first answer of a row that is learned; empty where none is."""
    messages, spans = row.learned()[0]
    return render(messages[: spans[0][0]], answer_next=True, tools=row.tools) if spans else ""


def rendered(row: Row, render: Render) -> list[Rendered]:
    """Return the texts whose tokens show where a row's answers begin and end."""
    found, first = list[Rendered](), tuple[Message, ...]()
    render = partial(render, tools=row.tools)
    for messages, spans in row.learned():
        turns, whole = list[Turn](), render(messages)
        for start, end in spans:
            # What comes before the first answer is mostly the same in all conversations.
            shared = bool(found) and not turns and messages[:start] == first
            before = found[0].turns[0].before if shared else render(messages[:start], answer_next=True)
            first = first or messages[:start]
            # Of the last turn the whole text shows it: one rendering less for most rows.
            through = render(messages[:end]) if end < len(messages) else None
            if through is not None and not whole.startswith(through):
                through = _without_lead(through, before, whole, messages[start:end])
            turns.append(Turn(start + 1, before, through))
        found.append(Rendered(whole, turns))
    return found


def _without_lead(through: str, before: str, whole: str, turns: Sequence[Message]) -> str:
    """Return the text up to the end of some turns as the whole has it, if it is `through` without their beginning.

    Qwen3's template writes empty thoughts before the words of a turn, but of the last one only. Else return `through`.
    """
    if not (whole.startswith(before) and through.startswith(before)):
        return through
    rest, written = whole[len(before) :], through[len(before) :]
    kept = next((written[at:] for at in range(len(written)) if rest.startswith(written[at:])), "")
    # What is left has to be all that was said: a few last characters may be alike by chance.
    said = [turn.content or "" for turn in turns] + [name for turn in turns for name in called(turn)]
    return before + kept if kept and all(each.strip() in kept for each in said) else through


def token_row(row: Sequence[Rendered], ids: Mapping[str, list[int]], model: str) -> TokenRow:
    """Return a row's tokens, given those of its texts. Its answers begin where any of them differs from the prompt.

    `model` is its name, for errors. Raises `RewrittenError` where the template writes earlier turns otherwise once
    others follow.
    """
    wholes = [ids[each.whole] for each in row]
    starts = [
        [common_prefix(ids[turn.before], whole) for turn in each.turns] for each, whole in zip(row, wholes, strict=True)
    ]
    # Where a token joins the end of the prompt and the beginning of one answer, both answers begin there.
    first = min(start[0] if start else len(whole) for start, whole in zip(starts, wholes, strict=True))
    # Turns with weight 0 may come before what is learned, in each answer others.
    alike = len({turn.before for each in row for turn in each.turns[:1]}) <= 1
    if not alike:
        first = min(first, *(common_prefix(wholes[0], whole) for whole in wholes))
    masks = []
    for each, whole, begins in zip(row, wholes, starts, strict=True):
        learned = [False] * len(whole)
        for turn, start in zip(each.turns, [first, *begins[1:]] if alike else begins, strict=False):
            through = whole if turn.through is None else ids[turn.through]
            end = min(len(through), len(whole))  # less than the turn where the row is cut
            if common_prefix(through, whole) < end:
                raise RewrittenError(
                    f"{model}: the chat template rewrites earlier turns, so the assistant's turn "
                    f"{turn.number} cannot be located; give one row for each answer instead, or a template that marks "
                    "them with {% generation %}."
                )
            learned[start:end] = [True] * max(0, end - start)
        masks.append(learned[first:])
    return TokenRow(wholes[0][:first], tuple(whole[first:] for whole in wholes), tuple(masks))


def marked_row(ids: list[int], offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> TokenRow:
    """Return a row's tokens, given where in its text each begins and ends, and which parts of the text are learned.

    A token is learned if any of its characters is, as in transformers' `return_assistant_tokens_mask`.
    """
    learned = [any(begin < end and start < stop for start, end in spans) for begin, stop in offsets]
    # What comes before is read alone, as in other rows; it is computed once where others share it.
    first = learned.index(True) if any(learned) else len(ids)
    return TokenRow(ids[:first], (ids[first:],), (learned[first:],))


def cut(tokens: TokenRow, max_length: int) -> TokenRow:
    """Return a row cut after `max_length` tokens. Raises `DataError` where that leaves an answer without a token."""
    room, first = max_length - len(tokens.prompt), 0 if tokens.prompt else 1  # the first of a text is not predicted
    if all(len(answer) <= room for answer in tokens.answers) and not all(map(any, tokens.learned)):
        raise DataError(
            "nothing of an answer is learned: the model's chat template writes no word of it; use a template that "
            "writes the assistant's turns."
        )
    if room < 1 or not all(any(learned[first:room]) for learned in tokens.learned):
        raise DataError(
            f"the prompt alone fills backend.max_length={max_length} tokens; shorten it or raise the limit."
        )
    # A part of an image is none, and a service refuses it.
    if tokens.images and tokens.images[-1].end > max_length:
        raise DataError(
            f"backend.max_length={max_length} cuts the row before the end of its last image; shorten it or raise the "
            "limit."
        )
    return TokenRow(
        tokens.prompt,
        tuple(answer[:room] for answer in tokens.answers),
        tuple(learned[:room] for learned in tokens.learned),
        tokens.images,
    )


def common_prefix(one: list[int], other: list[int]) -> int:
    """Return how many ids two texts have in common from their beginning."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
