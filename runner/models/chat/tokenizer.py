"""Rows as token ids, exactly as the model's own chat template writes them.

Works from `tokenizer.json` and the chat template alone, so that a plan can count tokens without torch or
transformers. The template is rendered as transformers renders it, and an answer begins where the tokens
of prompt and prompt + answer part (as TRL does it): the same ids as theirs, which the tests show.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path

from runner.data.images import Image
from runner.data.quality.vision import images_in, images_of
from runner.data.rows import Message, Prompt, Row, Tools
from runner.errors import ModelError
from runner.models import vision
from runner.models.chat.encoder import Encoder
from runner.models.chat.image_tokens import IdsWithImages, PlacedImage, placed
from runner.models.chat.row_tokens import RewrittenError, cut, marked_row, prompt_text, rendered, token_row
from runner.models.chat.row_tokens import TokenRow as TokenRow
from runner.models.chat.template import FILE, FOLDER, SETTINGS, ChatTemplate


class ChatTokenizer(Encoder):
    """A model's tokenizer and chat template, read from its folder; rows with images are refused unless it `sees` them.

    Raises `ModelError` where the folder has no `tokenizer.json` or no chat template.
    """

    def __init__(self, folder: Path, sees: bool = False) -> None:
        super().__init__(folder)
        self._sees = sees

    @cached_property
    def digest(self) -> str:
        """sha256 of all that decides a text's tokens: the files of the folder and the library's version."""
        from tokenizers import __version__

        found = sha256(__version__.encode())
        more = sorted(self.folder.glob(f"{FOLDER}/*.jinja"))
        for path in [*(self.folder / name for name in ("tokenizer.json", SETTINGS, FILE)), *more]:
            found.update(sha256(path.read_bytes() if path.exists() else b"").digest())
        if self._sees:
            found.update(vision.digest(self.folder).encode())  # nothing, for a model without images
        return found.hexdigest()

    def render(self, messages: Sequence[Message], answer_next: bool = False, tools: Tools | None = None) -> str:
        """Return the text the model sees; with `answer_next` it ends where the assistant begins to speak.

        Raises `DataError` if the template refuses the messages or leaves out tools, `ModelError` if there is none.
        """
        return self.template.render(messages, answer_next, tools)

    @cached_property
    def template(self) -> ChatTemplate:
        """The model's chat template."""
        return ChatTemplate(self.folder, self._sees)

    @cached_property
    def placeholder(self) -> int | None:
        """The id of the token that stands for images; None where none are seen.

        Raises `ModelError` where the tokenizer has no such token.
        """
        if self.template.processor is None:
            return None
        name = self.template.processor.placeholder
        ids = self.encode(name)
        if len(ids) != 1:
            raise ModelError(
                f"{self.folder.name}: the tokenizer has no {name}, which stands for images; take rows with images out, "
                "or choose another model."
            )
        return ids[0]

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt, up to where the assistant begins to speak, with its images where it has some.

        Raises what `render` raises.
        """
        ids = self.encode(self.render(prompt.turns, answer_next=True, tools=prompt.tools))
        images = images_in(prompt.turns)
        return IdsWithImages(ids, self._placed(ids, images)) if images else ids

    def with_images(self, tokens: TokenRow, row: Row) -> TokenRow:
        """Return a row's tokens with its images in their places."""
        images = images_of(row)
        return replace(tokens, images=self._placed(tokens.prompt + tokens.answers[0], images)) if images else tokens

    def _placed(self, ids: list[int], images: Sequence[Image]) -> tuple[PlacedImage, ...]:
        placeholder, processor = self.placeholder, self.template.processor
        assert placeholder is not None  # else no text would have been rendered
        assert processor is not None
        return placed(ids, placeholder, images, processor)

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
            tokens = self.with_images(tokens, given)
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
