"""What the untouched model thinks of each answer: computed once for a model and its rows, kept on disk.

The reference of preference tuning is the starting model itself, so no second model is loaded: its
log-probabilities are noted before the first step. They depend on the model and the tokens alone and lie in
the user's cache, where later epochs, runs and trials find them. The unit is a pack: its rows are computed together,
in the order of the data, so that a value never depends on what was known before.
"""

import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

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


def compute(
    path: Path, scorer: Scorer, rows: Sequence[TokenRow], room: int, identity: Any
) -> Generator[Event, None, Logps]:
    """Return the log-probability of each row's answers under a model that is as it was before training.

    `identity` is all that decides the values beside the tokens: model, type, layout, threads. What the cache at
    `path` knows is not computed; where the cache cannot be used, that is said and everything is computed.
    """
    try:
        with closing(Cache(path)) as cache:
            return (yield from _compute(cache, scorer, rows, room, identity))
    except (sqlite3.Error, OSError) as error:
        yield Note(f"{path}: {error}; the reference's log-probabilities are computed without it")
        return (yield from _compute(None, scorer, rows, room, identity))


def _compute(
    cache: Cache | None, scorer: Scorer, rows: Sequence[TokenRow], room: int, identity: Any
) -> Generator[Event, None, Logps]:
    found: Logps = []
    for indices in group([num_tokens(row) for row in rows], room):
        part = [rows[index] for index in indices]
        key = sha256(msgspec.msgpack.encode([identity, [[row.prompt, row.answers, row.learned] for row in part]]))
        known = cache.get(key.digest(), (len(part), len(part[0].answers))) if cache else None
        if known is None:
            known = _score(scorer, part)
            if cache:
                cache.put(key.digest(), known)
            yield Progress("prepare", len(found) + len(part), len(rows))
        found += map(tuple, known.tolist())
    return found


@torch.no_grad()
def _score(scorer: Scorer, rows: Sequence[TokenRow]) -> np.ndarray[Any, Any]:
    scorer.model.eval()
    logps: np.ndarray[Any, Any] = scorer(rows).logps.float().cpu().numpy()
    return logps
