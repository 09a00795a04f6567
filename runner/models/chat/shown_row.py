"""A row as the model sees it, for people: the rendered text in pieces that are read, learned or lost."""

import re
from collections.abc import Sequence
from itertools import groupby, repeat
from typing import Literal, NamedTuple

from runner.data.rows import Row
from runner.models.chat.tokenizer import ChatTokenizer

Fate = Literal["read", "learned", "cut"]
"""What becomes of a piece of text: it is only read, it is learned, or it is behind the limit of length."""


CUT: Fate = "cut"


class Piece(NamedTuple):
    """A piece of a rendered row."""

    text: str
    fate: Fate


class ShownRow(NamedTuple):
    """A row's prompt, each answer in pieces, and how many tokens there are and are learned, a shared prompt once."""

    prompt: str
    answers: list[list[Piece]]
    tokens: int
    learned: int


def shown_row(tokenizer: ChatTokenizer, row: Row, max_length: int) -> ShownRow:
    """Return a row as it is trained on, the placeholders of an image as one; of a prompt without answers that alone.

    Raises `DataError` for a row that the template or the limit of length leaves nothing to learn of.
    """
    if not all(each.spans for each in row.learned()):
        text = tokenizer.render(row.question, answer_next=True, tools=row.tools)
        return ShownRow(_short(text, tokenizer), [], len(tokenizer.encode(text)), 0)
    tokens = tokenizer.row(row, max_length)
    start, prompt, answers = len(tokens.prompt), "", []
    for each, learned in zip(row.learned(), tokens.learned, strict=True):
        text = tokenizer.render(each.messages, tools=row.tools)
        offsets = tokenizer.with_offsets(text)[1]
        begins = [begin for begin, _ in offsets[start:]]
        fates: list[Fate] = ["learned" if token else "read" for token in learned]
        prompt = _short(text[: begins[0]], tokenizer)
        pieces = _pieces(text, begins, [*fates, *repeat(CUT, len(begins) - len(fates))])
        answers.append([Piece(_short(each.text, tokenizer), each.fate) for each in pieces])
    # A pair's prompt once, as it is computed.
    count = start + sum(map(len, tokens.answers))
    return ShownRow(prompt, answers, count, sum(map(sum, tokens.learned)))


def _pieces(text: str, begins: Sequence[int], fates: Sequence[Fate]) -> list[Piece]:
    """Return the text from the first of some tokens on, given where each begins and its fate."""
    found, place = [], 0
    for fate, group in groupby(fates):
        begin, place = begins[place], place + len(list(group))
        # Up to the next piece, so that no character is lost where a token has none of its own.
        found.append(Piece(text[begin : begins[place] if place < len(begins) else len(text)], fate))
    return found


def _short(text: str, tokenizer: ChatTokenizer) -> str:
    """Return a text with the placeholder of each image once, and how often it is there: an image takes a thousand."""
    processor = tokenizer.template.processor
    if processor is None:
        return text
    many = re.compile(f"(?:{re.escape(processor.placeholder)}){{2,}}")
    return many.sub(lambda found: f"{processor.placeholder}×{len(found[0]) // len(processor.placeholder)}", text)
