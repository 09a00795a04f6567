"""The rows of a run and their tokens: on disk by their content, made when they are first needed."""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from runner import cache
from runner.backends import Events
from runner.backends.local.training.token_store import TokenStore
from runner.data.row_store import RowStore, write_rows
from runner.data.splits import Split
from runner.models.chat.tokenizer import ChatTokenizer, TokenRow
from runner.record import layout, samples
from runner.record.events import Progress
from runner.record.graded import Asked

if TYPE_CHECKING:
    from runner.plan import Run


TELLING_TOKENS = 384
"""The most tokens of a row with which packing is tried, where a model treats longer ones no differently."""


class TrainingData:
    """The splits of a run. Another run with the same rows finds them in the user's cache."""

    def __init__(self, run: "Run", kind: str, tokenizer: ChatTokenizer, max_length: int) -> None:
        self._run, self._kind, self._tokenizer, self._max_length = run, kind, tokenizer, max_length

    @cached_property
    def _folder(self) -> Path:
        """The user's cache, or the run's folder where that cannot be written to."""
        folder = cache.user_folder()
        # A read-only home, as in many containers, is no reason not to train.
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else self._run.folder / layout.CACHE

    @cached_property
    def rows(self) -> dict[Split, RowStore]:
        """The rows of each split that there is.

        Raises `DataError` where they are not those of the plan.
        """
        return {split: self._stored(split, planned.fingerprint) for split, planned in self._run.plan.splits.items()}

    def _stored(self, split: Split, fingerprint: str) -> RowStore:
        def write(draft: Path) -> None:
            write_rows(draft, self._run.row_blocks(split))

        # Named by the rows' own fingerprint: the same rows in another file are found, too.
        return RowStore(cache.entry(self._folder / "rows", fingerprint, write), self._kind)

    @cached_property
    def rows_to_ask(self) -> list[Asked]:
        """The rows whose prompts are answered."""
        return samples.rows_to_ask(
            self._run.request, self._run.with_source(self.rows.get("validation", self.rows["train"]))
        )

    def with_targets(self, split: Split) -> RowStore | None:
        """Return the rows of a split if they say more than their tokens do (`Row.targets`)."""
        rows = self.rows.get(split)
        # All rows of a split are of one kind, so the first one speaks for them.
        return rows if rows and rows[0].targets() else None

    @cached_property
    def tokens(self) -> dict[Split, TokenStore]:
        """Their tokens, cut to `backend.max_length`."""
        folder, length = self._folder / "tokens", self._max_length
        return {
            split: TokenStore(folder, self.rows[split], planned.fingerprint, self._tokenizer, length, split)
            for split, planned in self._run.plan.splits.items()
        }

    def check_long_rows(self) -> Events:
        """Tokenise the rows that are long enough to be refused, so that none of them stops the run later."""
        blocks = [(store, number) for store in self.tokens.values() for number in store.unchecked()]
        for done, (store, number) in enumerate(blocks):
            yield Progress("prepare", done, len(blocks), what="tokenising")
            # Tokenising is the check: it raises for a row whose prompt leaves nothing to learn.
            store.block(number)
        return {}

    def telling_rows(self, config: Mapping[str, object]) -> list[TokenRow]:
        """Return a long and the shortest row of the first block, with which packing is tried.

        Models whose tokens see only so far, as their configuration says, show it in the longest rows; others in any,
        and the longest take 10 s.
        """
        rows = self.tokens["train"]
        lengths = rows.lengths(0)
        # Mistral's and Gemma's sliding windows, Llama 4's chunks: shorter rows would not show that packing breaks
        # them.
        near = any(config.get(key) for key in ("sliding_window", "attention_chunk_size"))
        enough = [length for length in lengths if near or length <= TELLING_TOKENS] or [min(lengths)]
        return [rows[lengths.index(max(enough))], rows[lengths.index(min(lengths))]]
