"""Rows as token ids, exactly as the model's own chat template writes them.

Works from `tokenizer.json` and the chat template alone, so that a plan can count tokens without torch or
transformers. The template is rendered as transformers renders it, and an answer begins where the tokens
of prompt and prompt + answer part (as TRL does it): the same ids as theirs, which the tests show.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from runner.data.rows import Message, Prompt, Row, Tools
from runner.errors import ModelError
from runner.models.chat_template import FILE, FOLDER, SETTINGS, ChatTemplate
from runner.models.row_tokens import RewrittenError, cut, marked_row, prompt_text, rendered, token_row
from runner.models.row_tokens import TokenRow as TokenRow

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 16
"""A text is counted in pieces of so many characters per token that is allowed; four or five are usual."""
BATCH_CHARACTERS = 1 << 20
"""Characters that are encoded together: enough for all cores; their tokens take 11 MB."""
CUT_TOKENS = 64
"""By how many tokens, at most, a text that is cut inside a word has more than as a part of the whole."""


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
        more = sorted(self.folder.glob(f"{FOLDER}/*.jinja"))
        for path in [*(self.folder / name for name in ("tokenizer.json", SETTINGS, FILE)), *more]:
            found.update(sha256(path.read_bytes() if path.exists() else b"").digest())
        return found.hexdigest()

    def render(self, messages: Sequence[Message], answer_next: bool = False, tools: Tools | None = None) -> str:
        """Return the text the model sees; with `answer_next` it ends where the assistant begins to speak.

        Raises `DataError` if the template refuses the messages or leaves out tools, `ModelError` if there is none.
        """
        return self.template.render(messages, answer_next, tools)

    @cached_property
    def template(self) -> ChatTemplate:
        """The model's chat template."""
        return ChatTemplate(self.folder)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a rendered text; the template has written the special tokens, none are added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt, up to where the assistant begins to speak. Raises what `render` raises."""
        return self.encode(self.render(prompt.turns, answer_next=True, tools=prompt.tools))

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
            # Until enough tokens are there: how many characters a token takes depends on the language.
            size *= 4
            ids = self.encode(text[:size])
        return ids[:at_most] if size < len(text) else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def token(self, id: int) -> str:
        """Return the text of one id, of a special token its name."""
        text: str = self._tokenizer.decode([id], skip_special_tokens=False)
        return text

    @cached_property
    def ends(self) -> frozenset[int]:
        """The ids at which an answer ends when the model is asked; none where its folder names none."""
        # transformers reads them from these files, in this order.
        for name in ("generation_config.json", "config.json"):
            path = self.folder / name
            found = json.loads(path.read_text("utf-8")).get("eos_token_id") if path.exists() else None
            if found is not None:
                return frozenset(found if isinstance(found, list) else [found])
        return frozenset()

    def with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids of a rendered text, and where in it each begins and ends."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def row(self, row: Row, max_length: int | None = None) -> TokenRow:
        """Return a row's ids; each prompt + answer is cut after `max_length` tokens, as TRL cuts it.

        Raises `DataError` where the cut leaves an answer without a token, or the template cannot take the row.
        """
        return next(self.rows([row], max_length))

    def rows(self, rows: Sequence[Row], max_length: int | None = None) -> Iterator[TokenRow]:
        """Yield the same for several rows, whose texts are encoded together on all cores."""
        conversations = [rendered(row, self.render) for row in rows]
        texts = [list(dict.fromkeys(text for each in row for text in each.texts)) for row in conversations]
        ids = self.encode_all([text for each in texts for text in each], max_length)
        for given, row, each in zip(rows, conversations, texts, strict=True):
            encoded = dict(zip(each, islice(ids, len(each)), strict=True))
            try:
                tokens = token_row(row, encoded, self.folder.name)
            except RewrittenError as error:
                tokens = self._by_marks(given, error)
            yield tokens if max_length is None else cut(tokens, max_length)

    def _by_marks(self, row: Row, error: RewrittenError) -> TokenRow:
        """Return a row's ids, its learned turns where the template marks them. Raises `error` where it does not."""
        (messages, spans), *others = row.learned()
        turns = [number for number, turn in enumerate(messages) if turn.role == "assistant"]
        text, marks = self.template.marked(messages, row.tools)
        if others or len(marks) != len(turns):
            raise error
        wanted = {number for start, end in spans for number in range(start, end)}
        learned = [mark for mark, turn in zip(marks, turns, strict=True) if turn in wanted]
        return marked_row(*self.with_offsets(text), learned)

    def counts(self, rows: Sequence[Row], at_most: int) -> list[int]:
        """Return the tokens of the longest prompt + answer of each row; `at_most + 1` may mean any larger number.

        All rows are encoded together, very long ones only until they are over `at_most`.
        """
        texts = [[self.render(each.messages, tools=row.tools) for each in row.learned()] for row in rows]
        # One more than is allowed is enough to say that a row is too long.
        lengths = map(len, self.encode_all([text for each in texts for text in each], at_most + 1))
        return [max(islice(lengths, len(each))) for each in texts]

    def prompt_counts(self, rows: Sequence[Row], at_most: int) -> list[int]:
        """Return likewise the tokens that come before the first answer of each row that is learned."""
        return [
            min(len(ids), at_most + 1)
            for ids in self.encode_all([prompt_text(row, self.render) for row in rows], at_most + 1)
        ]

    def total(self, row: Row) -> int:
        """Return all tokens of a row, a shared prompt counted once."""
        tokens = self.row(row)
        return len(tokens.prompt) + sum(map(len, tokens.answers))


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
