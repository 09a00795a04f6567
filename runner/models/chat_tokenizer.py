"""Rows as token ids, exactly as the model's own chat template writes them.

Works from `tokenizer.json` and the chat template alone, so that a plan can count tokens without torch or
transformers. The template is rendered as transformers renders it, and an answer begins where the tokens
of prompt and prompt + answer part (as TRL does it): the same ids as theirs, which the tests show.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runner.data.rows import Message, Row
from runner.errors import DataError, ModelError
from runner.models.chat_template import ChatTemplate

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 16
"""A text is counted in pieces of so many characters per token that is allowed; four or five are usual."""
BATCH_CHARACTERS = 1 << 20
"""Characters that are encoded together: enough for all cores; their tokens take 11 MB."""
CUT_TOKENS = 64
"""By how many tokens, at most, a text that is cut inside a word has more than as a part of the whole."""


@dataclass(frozen=True)
class TokenRow:
    """A row's token ids: what is read (`prompt`) and what is learned after it (`answers`).

    A pair has two answers that share the prompt. A conversation has one, and `learned` says of each of
    its tokens whether it is the assistant's own.
    """

    prompt: list[int]
    answers: tuple[list[int], ...]
    learned: tuple[list[bool], ...]


class ChatTokenizer:
    """A model's tokenizer and chat template, read from its folder.

    Raises `ModelError` where the folder has no `tokenizer.json` or no chat template.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "tokenizer.json").exists():
            raise ModelError(
                f"{folder}: no tokenizer.json; the runner needs a fast tokenizer. "
                "Save one there with transformers' AutoTokenizer.save_pretrained."
            )

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        # Files may ask for either: then a text's tokens would depend on the texts that are encoded with it.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def digest(self) -> str:
        """sha256 of all that decides a text's tokens: the files of the folder and the library's version."""
        from tokenizers import __version__

        found = sha256(__version__.encode())
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            path = self.folder / name
            found.update(sha256(path.read_bytes() if path.exists() else b"").digest())
        return found.hexdigest()

    def render(self, messages: Sequence[Message], answer_next: bool = False) -> str:
        """Return the text the model sees; with `answer_next` it ends where the assistant begins to speak.

        Raises `DataError` if the template refuses the messages, `ModelError` if there is no template.
        """
        return self._template.render(messages, answer_next)

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.folder)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a rendered text; the template has written the special tokens, none are added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_all(self, texts: Sequence[str], at_most: int | None = None) -> Iterator[list[int]]:
        """Yield the same for each of several texts, encoded together on all cores.

        Of a very long text only the first `at_most` ids: to encode 10 MB whole would take 35 s and 2.7 GB.
        """
        size = sys.maxsize if at_most is None else CHARACTERS_PER_TOKEN * at_most
        for batch in _batches(texts, size):
            starts = self._tokenizer.encode_batch_fast([text[:size] for text in batch], add_special_tokens=False)
            for text, start in zip(batch, starts, strict=True):
                yield start.ids if len(text) <= size else self._start(text, start.ids, size, at_most or 0)

    def _start(self, text: str, ids: list[int], size: int, at_most: int) -> list[int]:
        """Return the first `at_most` ids of a text, given those of its first `size` characters."""
        while len(ids) <= at_most + CUT_TOKENS and size < len(text):
            size *= 4
            ids = self.encode(text[:size])
        return ids[:at_most] if size < len(text) else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def row(self, row: Row, max_length: int | None = None) -> TokenRow:
        """Return a row's ids; each prompt + answer is cut after `max_length` tokens, as TRL cuts it.

        Raises `DataError` where the cut leaves an answer without a token, or the template cannot take the row.
        """
        return next(self.rows([row], max_length))

    def rows(self, rows: Sequence[Row], max_length: int | None = None) -> Iterator[TokenRow]:
        """Yield the same for several rows, whose texts are encoded together on all cores."""
        rendered = [self._rendered(row) for row in rows]
        texts = [list(dict.fromkeys(text for each in row for text in each.texts)) for row in rendered]
        ids = self.encode_all([text for each in texts for text in each], max_length)
        for row, each in zip(rendered, texts, strict=True):
            tokens = self._tokens(row, dict(zip(each, islice(ids, len(each)), strict=True)))
            yield tokens if max_length is None else _cut(tokens, max_length)

    def counts(self, rows: Sequence[Row], at_most: int) -> list[int]:
        """Return the tokens of the longest prompt + answer of each row; `at_most + 1` may stand for any larger number.

        All rows are encoded together, very long ones only until they are over `at_most`.
        """
        texts = [self._wholes(row) for row in rows]
        lengths = map(len, self.encode_all([text for each in texts for text in each], at_most + 1))
        return [max(islice(lengths, len(each))) for each in texts]

    def prompt_counts(self, rows: Sequence[Row], at_most: int) -> list[int]:
        """Return likewise the tokens that come before the first answer of each row that is learned."""
        return [min(len(ids), at_most + 1) for ids in self.encode_all([self._prompt(row) for row in rows], at_most + 1)]

    def _prompt(self, row: Row) -> str:
        messages, spans = row.learned()[0]
        return self.render(messages[: spans[0][0]], answer_next=True) if spans else ""

    def _wholes(self, row: Row) -> list[str]:
        """Return a row as the model sees it, a pair with each of its answers."""
        return [self.render(each.messages) for each in row.learned()]

    def total(self, row: Row) -> int:
        """Return all tokens of a row, a shared prompt counted once."""
        tokens = self.row(row)
        return len(tokens.prompt) + sum(map(len, tokens.answers))

    def _rendered(self, row: Row) -> list["_Rendered"]:
        """Return the texts whose tokens show where a row's answers begin and end."""
        found: list[_Rendered] = []
        for messages, spans in row.learned():
            turns: list[_Turn] = []
            for start, end in spans:
                shared = found and not turns  # what comes before the first answer is the same in all conversations
                before = found[0].turns[0].before if shared else self.render(messages[:start], answer_next=True)
                through = self.render(messages[:end]) if end < len(messages) else None
                turns.append(_Turn(start + 1, before, through))
            found.append(_Rendered(self.render(messages), turns))
        return found

    def _tokens(self, row: Sequence["_Rendered"], ids: Mapping[str, list[int]]) -> TokenRow:
        """Return a row's tokens, given those of its texts. Its answers begin where any of them differs from the prompt.

        Raises `DataError` where the template writes earlier turns otherwise once others follow.
        """
        wholes = [ids[each.whole] for each in row]
        starts = [
            [_common_prefix(ids[turn.before], whole) for turn in each.turns]
            for each, whole in zip(row, wholes, strict=True)
        ]
        first = min(start[0] if start else len(whole) for start, whole in zip(starts, wholes, strict=True))
        masks = []
        for each, whole, begins in zip(row, wholes, starts, strict=True):
            learned = [False] * len(whole)
            for turn, start in zip(each.turns, [first, *begins[1:]], strict=False):
                through = whole if turn.through is None else ids[turn.through]
                end = min(len(through), len(whole))  # less than the turn where the row is cut
                if _common_prefix(through, whole) < end:
                    raise DataError(
                        f"{self.folder.name}: the chat template rewrites earlier turns, so the assistant's turn "
                        f"{turn.number} cannot be told apart; give one row for each answer instead."
                    )
                learned[start:end] = [True] * max(0, end - start)
            masks.append(learned[first:])
        return TokenRow(wholes[0][:first], tuple(whole[first:] for whole in wholes), tuple(masks))


class _Turn(NamedTuple):
    """A learned turn: its number from 1, the text before it, and that with it, None where it is the last one."""

    number: int
    before: str
    through: str | None


class _Rendered(NamedTuple):
    """A conversation as text, and of each turn that is learned where it begins and ends."""

    whole: str
    turns: list[_Turn]

    @property
    def texts(self) -> Iterator[str]:
        """All texts whose tokens are needed."""
        yield self.whole
        yield from (text for turn in self.turns for text in turn[1:] if text is not None)


def _batches(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    """Yield texts in batches that keep all cores busy and need little memory; of each so many characters count."""
    batch, characters = list[str](), 0
    for text in texts:
        characters += min(len(text), size)
        if batch and characters > BATCH_CHARACTERS:
            yield batch
            batch, characters = [], min(len(text), size)
        batch.append(text)
    if batch:
        yield batch


def _cut(tokens: TokenRow, max_length: int) -> TokenRow:
    room, first = max_length - len(tokens.prompt), 0 if tokens.prompt else 1  # the first of a text is not predicted
    if room < 1 or not all(any(learned[first:room]) for learned in tokens.learned):
        raise DataError(
            f"the prompt alone fills backend.max_length={max_length} tokens; shorten it or raise the limit."
        )
    return TokenRow(
        tokens.prompt,
        tuple(answer[:room] for answer in tokens.answers),
        tuple(learned[:room] for learned in tokens.learned),
    )


def _common_prefix(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
