"""What a plan checks of rows as the model will see them, before anything is trained.

Something is learned of each row, the end of each turn of the assistant is among it, and nothing of the prompt is.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, pairwise

from runner.data.findings import Finding
from runner.data.quoting import shown
from runner.data.rows import BadRow, Oddity, Row, holds_images, uses_tools
from runner.errors import DataError
from runner.models.chat.row_tokens import TokenRow, prompt_text
from runner.models.chat.template import FILE, SETTINGS
from runner.models.chat.tokenizer import ChatTokenizer

FIRST_ROWS = 256
"""Rows that are all tokenised: one takes 1 to 3 ms, so that a million would take half an hour."""
SHAPE_ROWS = 16
"""Of the rows that follow, so many of each shape: a template treats rows with the same turns alike."""


MARKS = (b'"role":"system"', b'"role":"developer"', b'"weight"', b'"content":""', b"</think>")
"""What templates decide by, next to the number of turns; models that think cut off what comes before the last one."""


def shape(line: bytes) -> tuple[object, ...]:
    """Return what templates decide by, of a row's canonical line."""
    # By the line: of a million rows few are looked at, and the others are not decoded.
    return (line.count(b'"role":"'), *[mark in line for mark in MARKS])


def of_template(tokenizer: ChatTokenizer) -> Iterator[Finding]:
    """Yield what is odd about a model's chat template itself."""
    line, folder = tokenizer.template.other_line, tokenizer.folder.name
    if line is not None:
        message = (
            f"the model has two chat templates, which differ from here on; this file counts, and not the key "
            f"chat_template of {SETTINGS}, which older programs read; make them equal, or remove one"
        )
        yield Finding("warning", "template-differs", f"{folder}/{FILE}", line, message)


def _left_out(row: Row, texts: Sequence[str]) -> Iterator[Oddity]:
    """Yield the first words of a learned turn that are not in what the template has written."""
    for (messages, spans), text in zip(row.learned(), texts, strict=True):
        for turn in chain.from_iterable(messages[start:end] for start, end in spans):
            if (turn.content or "").strip() not in text:
                yield Oddity(
                    "words-left-out",
                    f"the chat template leaves out what the assistant says, {shown(turn.content or '')!r}; it is not "
                    "learned: give it in the form that the template writes, or take it out",
                )
                return


class LearnedCheck:
    """The check of rows for one model, which is handed them block by block."""

    def __init__(self, tokenizer: ChatTokenizer, max_length: int) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length
        self._shapes = Counter[tuple[object, ...]]()
        self._seen = 0
        processor = tokenizer.template.processor
        # In somebody's words it would be an image to the model.
        self._placeholder = processor.placeholder.encode() if processor else None
        self._is_blank = cache(lambda token: not tokenizer.token(token).strip())

    def chosen(self, lines: Sequence[bytes]) -> list[int]:
        """Return the places of the rows to look at among canonical lines."""
        return [place for place, line in enumerate(lines) if self._is_looked_at(line)]

    def __call__(self, rows: Sequence[Row]) -> Iterator[tuple[int, Oddity | BadRow]]:
        """Yield the place of a row among `rows`, and what is odd; a `BadRow` where nothing can be learned of it."""
        for place, (row, tokens) in enumerate(zip(rows, self._tokens(rows), strict=True)):
            found = self._oddities(row, tokens) if isinstance(tokens, TokenRow) else [tokens] if tokens else []
            yield from ((place, each) for each in found)

    def _is_looked_at(self, line: bytes) -> bool:
        key = shape(line)
        self._shapes[key] += 1
        self._seen += 1
        # Of tools and images each row has others, and may have one that is spoilt.
        if self._shapes[key] <= SHAPE_ROWS or self._seen <= FIRST_ROWS or uses_tools(line) or holds_images(line):
            return True
        return self._placeholder is not None and self._placeholder in line

    def _tokens(self, rows: Sequence[Row]) -> list[TokenRow | BadRow | None]:
        """Return each row's tokens, or why it has none; None for a row that is a prompt alone."""
        if all(each.spans for row in rows for each in row.learned()):
            # Together, as their texts are encoded on all cores.
            try:
                return list(self._tokenizer.rows(rows, self._max_length))
            except DataError:  # of some row: which one is found one by one
                pass
        return [self._tokens_of(row) for row in rows]

    def _tokens_of(self, row: Row) -> TokenRow | BadRow | None:
        try:
            if all(each.spans for each in row.learned()):
                return self._tokenizer.row(row, self._max_length)
            # A prompt alone has nothing to learn, but the template has to write it.
            self._tokenizer.render(row.question, answer_next=True, tools=row.tools)
        except DataError as error:
            return BadRow("not-learned", str(error))
        return None

    def _oddities(self, row: Row, tokens: TokenRow) -> Iterator[Oddity]:
        for answer, learned in zip(tokens.answers, tokens.learned, strict=True):
            whole = len(tokens.prompt) + len(answer) < self._max_length
            # Where a stretch of learned tokens ends; the last one's end may have been cut off.
            ends = [place for place, (now, then) in enumerate(pairwise([*learned, False])) if now and not then]
            if any(not self._ends(answer, end) for end in (ends if whole else ends[:-1])):
                yield self._endless()
                break  # of both answers of a pair it is said once
        texts = [self._tokenizer.render(each.messages, tools=row.tools) for each in row.learned()]
        yield from _left_out(row, texts)
        before, text = prompt_text(row, self._tokenizer.render), texts[0]
        if not text.startswith(before):
            other = next(place for place, (a, b) in enumerate(zip(before, text + "\0", strict=False)) if a != b)
            yield Oddity(
                "prompt-differs",
                f"the chat template writes the prompt otherwise once an answer follows, from {shown(before[other:])!r} "
                "on; what comes after that is learned as the answer, and the model is asked another prompt than it "
                "learns from; use a template that writes it the same",
            )

    def _ends(self, answer: Sequence[int], place: int) -> bool:
        """Say whether learned tokens up to a place have the model's end of a turn as the last that is not blank."""
        last = next((token for token in answer[place::-1] if not self._is_blank(token)), None)
        return not self._tokenizer.ends or last in self._tokenizer.ends

    def _endless(self) -> Oddity:
        names = " or ".join(map(self._tokenizer.token, sorted(self._tokenizer.ends)))
        return Oddity(
            "end-not-learned",
            f"a turn of the assistant is learned without its end, {names}, so that the model does not learn to stop; "
            f"write that token behind the turn in the chat template, {self._tokenizer.template.name}, or choose "
            "another model",
        )
