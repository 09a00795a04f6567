"""The rows that both sides learn from: real files where there are some, else made up with lengths like theirs."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from runner.data.rows import Row, canonical
from runner.data.splits import Selection, read_rows
from runner.errors import DataError
from runner.models.chat.tokenizer import ChatTokenizer, TokenRow
from tests.benchmarks.bench_data import WORDS

PLAIN = [word for word in WORDS if word.isalpha() and word.isascii()]
BATCH = 4
MAX_LENGTH = 1024
Turns = list[dict[str, str]]


@dataclass(frozen=True)
class Source:
    """Where a case's rows come from: a file of the data folder, or what makes up a row by its number."""

    kind: str
    count: int
    made: Callable[[random.Random], dict[str, Any]]
    file: str | None = None


@dataclass(frozen=True)
class Data:
    """Rows in batches of `BATCH`, as text and as tokens, and what is to be said of where they come from."""

    texts: list[bytes]
    tokens: list[TokenRow]
    reported: str

    @property
    def num_steps(self) -> int:
        """Batches, which are optimizer steps."""
        return len(self.texts) // BATCH

    def batches(self) -> Iterator[list[TokenRow]]:
        """Yield the tokens of each batch."""
        for start in range(0, len(self.tokens), BATCH):
            yield self.tokens[start : start + BATCH]

    def write(self, path: Path, start: int = 0, end: int | None = None) -> Path:
        """Write the batches from `start` to `end`, a row a line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\n".join(self.texts[start * BATCH : None if end is None else end * BATCH]) + b"\n")
        return path

    @property
    def heaviest(self) -> int:
        """The batch with the most tokens once it is padded."""
        sizes = [padded(batch) for batch in self.batches()]
        return sizes.index(max(sizes))


def needed(rows: Sequence[TokenRow]) -> int:
    """Return the tokens of rows, each prompt once and nothing padded."""
    return sum(len(row.prompt) + sum(map(len, row.answers)) for row in rows)


def padded(rows: Sequence[TokenRow]) -> int:
    """Return the tokens of rows where each answer has its prompt, and all are as long as the longest."""
    lengths = [len(row.prompt) + len(answer) for row in rows for answer in row.answers]
    return len(lengths) * max(lengths)


def words(chance: random.Random, number: float) -> str:
    """Return a text of so many words."""
    return " ".join(chance.choices(PLAIN, k=max(1, round(number))))


def equal_pair(chance: random.Random) -> dict[str, Any]:
    """Return a pair of about 116 tokens of prompt and 78 of each answer, the template's included."""
    return _pair([_turn("user", words(chance, 85))], words(chance, 75), words(chance, 75))


def dialogue_pair(chance: random.Random) -> dict[str, Any]:
    """Return a pair with one to nine turns before it; lengths are log-normal, most short, some very long."""
    turns = 1 + 2 * min(4, int(chance.expovariate(0.7)))
    prompt = [
        _turn("assistant" if turn % 2 else "user", words(chance, _length(chance, 30, 0.8))) for turn in range(turns)
    ]
    return _pair(prompt, words(chance, _length(chance, 38, 0.9)), words(chance, _length(chance, 38, 0.9)))


def essay_pair(chance: random.Random) -> dict[str, Any]:
    """Return a pair with long answers, log-normal too."""
    prompt = [_turn("user", words(chance, _length(chance, 120, 0.9)))]
    return _pair(prompt, words(chance, _length(chance, 220, 0.7)), words(chance, _length(chance, 220, 0.7)))


def sum_conversation(chance: random.Random) -> dict[str, Any]:
    """Return a question and its answer, both of about a hundred tokens."""
    turns = [_turn("user", words(chance, _length(chance, 60, 0.35)))]
    return {"messages": [*turns, _turn("assistant", words(chance, _length(chance, 110, 0.45)))]}


def read(source: Source, folder: Path | None, num_steps: int | None, tokenizer: ChatTokenizer, scratch: Path) -> Data:
    """Return a case's rows, cut to whole batches and to `num_steps`; which rows come first is a seeded draw.

    Rows that `MAX_LENGTH` would leave without an answer are left out, as TRL leaves them out.
    """
    path = folder / source.file if folder and source.file else _make(source, scratch / "made.jsonl")
    found: list[tuple[Row, TokenRow]] = []
    rows = islice(read_rows(Selection(train=str(path), kind=source.kind), "train"), source.count)
    left_out = 0
    for row in rows:
        try:
            found.append((row, tokenizer.row(row, MAX_LENGTH)))
        except DataError:
            left_out += 1
    random.Random(0).shuffle(found)
    kept = found[: BATCH * min(len(found) // BATCH, num_steps or len(found))]
    whence = path.name if folder and source.file else "rows made up here"
    reported = f"{len(kept)} of {source.count} rows of {whence}" + (f", {left_out} too long" if left_out else "")
    return Data([canonical(row) for row, _ in kept], [tokens for _, tokens in kept], reported)


def _make(source: Source, path: Path) -> Path:
    chance = random.Random(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(source.made(chance)) + "\n" for _ in range(source.count)), "utf-8")
    return path


def _length(chance: random.Random, median: float, spread: float) -> float:
    return median * chance.lognormvariate(0, spread)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _pair(prompt: Turns, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": [_turn("assistant", chosen)], "rejected": [_turn("assistant", rejected)]}
