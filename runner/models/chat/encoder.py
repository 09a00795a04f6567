"""A model's tokenizer: texts as token ids and back, from `tokenizer.json` alone."""

import json
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHARACTERS_PER_TOKEN = 16
"""A text is counted in pieces of so many characters per token that is allowed; four or five are usual."""
BATCH_CHARACTERS = 1 << 20
"""Characters that are encoded together: enough for all cores; their tokens take 11 MB."""
CUT_TOKENS = 64
"""By how many tokens, at most, a text that is cut inside a word has more than as a part of the whole."""


class Encoder:
    """The tokenizer of a model's folder. Raises `ModelError` where the folder has no `tokenizer.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "tokenizer.json").exists():
            raise ModelError(
                f"{folder}: no tokenizer.json; the runner needs a fast tokenizer. "
                "Save one there with transformers' AutoTokenizer.save_pretrained."
            )

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        path = self.folder / "tokenizer.json"
        return _read(path, path.stat().st_mtime_ns)

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


# Checks, the count of tokens and training each have an encoder: the embedded model's file takes 0.1 s to read.
@lru_cache(maxsize=2)
def _read(path: Path, _changed: int) -> "Tokenizer":
    """Return a file's tokenizer; of a file that changed since, another one."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    # Files may ask for either: then a text's tokens would depend on the texts that are encoded with it.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
