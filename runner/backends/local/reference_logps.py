"""What the untouched model thinks of each answer: computed once for a model and its rows, kept on disk.

The reference of preference tuning is the starting model itself, so no second model is loaded: its
log-probabilities are noted before the first step. They depend on the model and the tokens alone and lie in
the user's cache, where later epochs, runs and trials find them. The unit is a pack: its rows are computed together,
in the order of the data, so that a value never depends on what was known before.
"""

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from runner import ranks
from runner.backends.local import shares
from runner.backends.local.lanes import rounds
from runner.backends.local.layout import group, num_tokens
from runner.backends.local.logps import Scorer
from runner.events import Event, Note, Progress
from runner.tokens import TokenRow

Logps = list[tuple[float, ...]]


class Cache:
    """Packs' log-probabilities by a hash of model and tokens, in an SQLite file that any process may write to."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS logps (pack BLOB PRIMARY KEY, logps BLOB) WITHOUT ROWID")

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def get(self, key: bytes, shape: tuple[int, int]) -> np.ndarray[Any, Any] | None:
        """Return the log-probabilities (rows, answers) of a pack, if they are known; a torn value is not."""
        found = self.connection.execute("SELECT logps FROM logps WHERE pack = ?", (key,)).fetchone()
        whole = found is not None and len(found[0]) == 4 * shape[0] * shape[1]
        return np.frombuffer(found[0], "<f4").reshape(shape) if whole else None

    def put(self, key: bytes, logps: np.ndarray[Any, Any]) -> None:
        """Keep the log-probabilities of a pack."""
        self.connection.execute("INSERT OR REPLACE INTO logps VALUES (?, ?)", (key, logps.astype("<f4").tobytes()))


@dataclass
class _Known:
    """The cache as long as it can be used, and what to tell of it once it cannot."""

    path: Path
    cache: Cache | None = None
    problem: str = ""

    def read(self, keys: Sequence[bytes], shapes: Sequence[tuple[int, int]]) -> dict[int, np.ndarray[Any, Any]]:
        """Return what is known, by the packs' numbers."""
        found = {}
        try:
            self.cache = Cache(self.path)
            for number, (key, shape) in enumerate(zip(keys, shapes, strict=True)):
                if (logps := self.cache.get(key, shape)) is not None:
                    found[number] = logps
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        return found

    def add(self, key: bytes, logps: np.ndarray[Any, Any]) -> None:
        """Keep what was computed."""
        try:
            if self.cache:
                self.cache.put(key, logps)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def close(self) -> None:
        """Let go of the file."""
        if self.cache:
            self.cache.close()

    def _give_up(self, error: Exception) -> None:
        self.close()
        self.cache = None
        self.problem = f"{self.path}: {error}; the reference's log-probabilities are computed without it"


def compute(
    path: Path, scorer: Scorer, rows: Sequence[TokenRow], room: int, identity: Any
) -> Generator[Event, None, Logps]:
    """Return the log-probability of each row's answers under a model that is as it was before training.

    `identity` is all that decides the values beside the tokens: model, type, layout, threads. What the cache at
    `path` knows is not computed; where the cache cannot be used, that is said and the rest is computed. Several
    processes share the computing, and the first alone reads and writes the cache.
    """
    world, parts = ranks.world(), [rows[run[0] : run[-1] + 1] for run in group([num_tokens(row) for row in rows], room)]
    keys = [_key(identity, part) for part in parts]
    with closing(_Known(path)) as known:
        shapes = [(len(part), len(part[0].answers)) for part in parts]
        logps = world.tell(known.read(keys, shapes) if world.place.first else None)
        missing = [number for number in range(len(parts)) if number not in logps]
        sizes = [sum(map(num_tokens, parts[number])) for number in missing]
        turns = [turn for turn, _ in shares.turns(sizes, world.place)]
        for together in rounds([sizes[turn] for turn in turns], scorer.lanes.count, scorer.lanes.count * room):
            numbers = [missing[turns[index]] for index in together]
            scored = scorer.lanes.run([partial(_score, scorer, parts[number]) for number in numbers])
            for found in world.collect(list(zip(numbers, scored, strict=True))):
                for number, values in found:
                    if number not in logps:
                        logps[number] = values
                        known.add(keys[number], values)
            yield Progress("prepare", sum(map(len, logps.values())), len(rows))
        if problem := world.tell(known.problem):
            yield Note(problem)
    return [tuple(row) for number in range(len(parts)) for row in logps[number].tolist()]


def _key(identity: Any, part: Sequence[TokenRow]) -> bytes:
    rows = [[row.prompt, row.answers, row.learned] for row in part]
    return sha256(msgspec.msgpack.encode([identity, rows])).digest()


@torch.no_grad()
def _score(scorer: Scorer, rows: Sequence[TokenRow]) -> np.ndarray[Any, Any]:
    scorer.model.eval()
    logps: np.ndarray[Any, Any] = scorer(rows).logps.float().cpu().numpy()
    return logps
