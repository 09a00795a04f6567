"""Rows as token ids, exactly as the model's own chat template writes them.

Works from `tokenizer.json` and the chat template alone, so that a plan can count tokens without torch or
transformers. The template is rendered as transformers renders it, and an answer begins where the tokens
of prompt and prompt + answer part (as TRL does it): the same ids as theirs, which the tests show.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from runner.data.rows import Conversation, Message, Pair, Row
from runner.errors import DataError, ModelError

if TYPE_CHECKING:
    from jinja2 import Template
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

        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    @cached_property
    def _settings(self) -> dict[str, Any]:
        path = self.folder / "tokenizer_config.json"
        settings: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return settings

    @cached_property
    def _template(self) -> "Template":
        path = self.folder / "chat_template.jinja"
        source = path.read_text("utf-8") if path.exists() else self._settings.get("chat_template")
        if not isinstance(source, str):
            raise ModelError(
                f"{self.folder}: the model has no chat template; choose an instruction-tuned model, "
                "or put the template into chat_template.jinja there."
            )
        return _template(source)

    def render(self, messages: Sequence[Message], answer_next: bool = False) -> str:
        """Return the text the model sees; with `answer_next` it ends where the assistant begins to speak.

        Raises `DataError` where the template refuses the messages.
        """
        chat = [msgspec.to_builtins(message) for message in messages]
        special = {key: _text(self._settings.get(key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
        from jinja2.exceptions import TemplateError

        try:
            return self._template.render(messages=chat, add_generation_prompt=answer_next, tools=None, **special)
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            raise DataError(
                f"{self.folder.name}: the model's chat template refuses a row with the turns {roles} ({error}); "
                "change or remove such rows, or choose another model."
            ) from None

    def encode(self, text: str) -> list[int]:
        """Return the ids of a rendered text; the template has written the special tokens, none are added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def row(self, row: Row, max_length: int | None = None) -> TokenRow:
        """Return a row's ids; each prompt + answer is cut after `max_length` tokens, as TRL cuts it.

        Raises `DataError` where the cut leaves an answer without a token, or the template cannot take the row.
        """
        tokens = self._pair(row) if isinstance(row, Pair) else self._conversation(row)
        return tokens if max_length is None else _cut(tokens, max_length)

    def counts(self, rows: Sequence[Row], at_most: int) -> list[int]:
        """Return the tokens of the longest prompt + answer of each row; all rows are encoded together.

        A very long text is counted from its start until it has clearly more than `at_most` tokens: 10 MB whole
        would take 35 s and 2.7 GB. `at_most + 1` stands for its number.
        """
        most = [0] * len(rows)
        texts = [(place, text) for place, row in enumerate(rows) for text in self._texts(row)]
        size = CHARACTERS_PER_TOKEN * at_most
        while texts:
            longer = []
            for (place, text), tokens in zip(texts, self._lengths([text[:size] for _, text in texts]), strict=True):
                if len(text) <= size:
                    most[place] = max(most[place], tokens)
                elif tokens > at_most + CUT_TOKENS:
                    most[place] = max(most[place], at_most + 1)
                else:
                    longer.append((place, text))
            texts, size = longer, 4 * size
        return most

    def _texts(self, row: Row) -> list[str]:
        """Return a row as the model sees it, a pair with each of its answers."""
        wholes = [row.prompt + row.chosen, row.prompt + row.rejected] if isinstance(row, Pair) else [row.messages]
        return [self.render(messages) for messages in wholes]

    def _lengths(self, texts: Sequence[str]) -> Iterator[int]:
        """Yield the number of tokens of each text, encoded in batches that bound the memory."""
        batch, characters = list[str](), 0
        for text in [*texts, None]:
            if batch and (text is None or characters + len(text) > BATCH_CHARACTERS):
                yield from map(len, self._tokenizer.encode_batch_fast(batch, add_special_tokens=False))
                batch, characters = [], 0
            if text is not None:
                batch.append(text)
                characters += len(text)

    def total(self, row: Row) -> int:
        """Return all tokens of a row, a shared prompt counted once."""
        tokens = self.row(row)
        return len(tokens.prompt) + sum(map(len, tokens.answers))

    def _pair(self, pair: Pair) -> TokenRow:
        prompt = self.encode(self.render(pair.prompt, answer_next=True))
        chosen = self.encode(self.render(pair.prompt + pair.chosen))
        rejected = self.encode(self.render(pair.prompt + pair.rejected))
        start = min(_common_prefix(prompt, chosen), _common_prefix(prompt, rejected))
        answers = (chosen[start:], rejected[start:])
        return TokenRow(prompt[:start], answers, tuple([True] * len(answer) for answer in answers))

    def _conversation(self, conversation: Conversation) -> TokenRow:
        messages = conversation.messages
        ids = self.encode(self.render(messages))
        learned = [False] * len(ids)
        for index, message in enumerate(messages):
            if message.role == "assistant" and message.weight != 0:
                start, end = self._turn(messages, index, ids)
                learned[start:end] = [True] * (end - start)
        first = learned.index(True) if True in learned else len(ids)
        return TokenRow(ids[:first], (ids[first:],), (learned[first:],))

    def _turn(self, messages: Sequence[Message], index: int, ids: list[int]) -> tuple[int, int]:
        before = self.encode(self.render(messages[:index], answer_next=True))
        through = self.encode(self.render(messages[: index + 1]))
        if _common_prefix(through, ids) < len(through):
            raise DataError(
                f"{self.folder.name}: the chat template rewrites earlier turns, so the assistant's turn {index + 1} "
                "cannot be told apart; give one row for each answer instead."
            )
        return _common_prefix(before, ids), len(through)


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


def _text(token: Any) -> str:
    """Return a special token's text: a string, or in older files an object with `content`."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _template(source: str) -> "Template":
    """Compile a chat template in the environment that transformers gives it."""
    from datetime import datetime

    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import CallBlock, Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}…{% endgeneration %}` marks the assistant's text; here it only passes through."""

        tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_pass"), [], [], body).set_lineno(line)

        def _pass(self, caller: Any) -> str:
            return str(caller())

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)
