"""What the untouched model thinks of each answer: computed once for a model and its rows, kept on disk.

The reference of preference tuning is the starting model itself, so no second model is loaded: its
log-probabilities are noted before the first step. They depend on the model and the tokens alone and lie in
the user's cache, where later epochs, runs and trials find them, and trials that begin at the same time share the
computing. The unit is a pack: its rows are computed together, in the order of the data, so that a value never depends
on what was known before.
"""

import math
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

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
Array = np.ndarray[Any, Any]
T = TypeVar("T")


class Cache:
    """Packs' log-probabilities by a hash of model and tokens, in an SQLite file that any process may write to.

    Its journal is one that holds on a network folder, too, where machines share the cache. It is not waited for
    until it is on the disk: what a power cut tears is found out by its checksum.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=TRUNCATE")
        self.connection.execute("PRAGMA synchronous=OFF")
        self.connection.execute("CREATE TABLE IF NOT EXISTS logps (pack BLOB PRIMARY KEY, logps BLOB) WITHOUT ROWID")

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def get(self, key: bytes, shape: tuple[int, int]) -> Array | None:
        """Return the log-probabilities (rows, answers) of a pack, if they are known; a claim or a torn value is not."""
        found = self.connection.execute("SELECT logps FROM logps WHERE pack = ?", (key,)).fetchone()
        if found is None or found[0][:4] != _checksum(key, found[0][4:]) or len(found[0]) != 4 + 4 * math.prod(shape):
            return None
        return np.frombuffer(found[0], "<f4", offset=4).reshape(shape)

    def claim(self, key: bytes) -> bool:
        """Say whether no other process has a pack's values, or is at them; from now on this one is."""
        return self.connection.execute("INSERT OR IGNORE INTO logps VALUES (?, x'')", (key,)).rowcount > 0

    def put(self, key: bytes, logps: Array) -> None:
        """Keep the log-probabilities of a pack."""
        values = logps.astype("<f4").tobytes()
        self.connection.execute("INSERT OR REPLACE INTO logps VALUES (?, ?)", (key, _checksum(key, values) + values))


def _checksum(key: bytes, values: bytes) -> bytes:
    return crc32(key + values).to_bytes(4, "little")


class _Known:
    """What the cache knows of some packs, as long as it can be used; then what to tell of it."""

    def __init__(self, path: Path, keys: Sequence[bytes], shapes: Sequence[tuple[int, int]]) -> None:
        self.path, self.keys, self.shapes = path, keys, shapes
        self.cache: Cache | None = None
        self.problem = ""

    def open(self) -> None:
        """Open the file, or make it."""
        try:
            self.cache = Cache(self.path)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def read(self, numbers: Iterable[int]) -> dict[int, Array]:
        """Return those packs that are known, by their numbers."""
        found = {number: self._ask(Cache.get, number, self.shapes[number]) for number in numbers}
        return {number: logps for number, logps in found.items() if logps is not None}

    def unclaimed_first(self, rounds: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
        """Yield rounds of packs' numbers: claimed for this process one by one, then those that another has claimed."""
        others = []
        for numbers in rounds:
            if self._ask(Cache.claim, numbers[0]) is False:
                others.append(numbers)
            else:
                yield numbers
        yield from others

    def add(self, number: int, logps: Array) -> None:
        """Keep what was computed."""
        self._ask(Cache.put, number, logps)

    def close(self) -> None:
        """Let go of the file."""
        if self.cache:
            self.cache.close()
            self.cache = None

    def _ask(self, call: Callable[..., T], number: int, *more: Any) -> T | None:
        """Call a method of the cache for a pack; None where it cannot be used."""
        try:
            return call(self.cache, self.keys[number], *more) if self.cache else None
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        self.close()
        self.problem = f"{self.path}: {error}; the reference's log-probabilities are computed without it"


def compute(
    path: Path, scorer: Scorer, rows: Sequence[TokenRow], room: int, identity: Any
) -> Generator[Event, None, Logps]:
    """Return the log-probability of each row's answers under a model that is as it was before training.

    `identity` is all that decides the values beside the tokens: model, type, layout, threads. What the cache at
    `path` knows is not computed; where the cache cannot be used, that is said and the rest is computed. The processes
    of one run share the computing, and the first alone reads and writes the cache; so do runs at the same time.
    """
    world, parts = ranks.world(), [rows[run[0] : run[-1] + 1] for run in group([num_tokens(row) for row in rows], room)]
    shapes = [(len(part), len(part[0].answers)) for part in parts]
    with closing(_Known(path, [_key(identity, part) for part in parts], shapes)) as known:
        if world.place.first:
            known.open()
        logps = world.tell(known.read(range(len(parts))))
        todo = _rounds(scorer, parts, [number for number in range(len(parts)) if number not in logps], room)
        alone = world.place.count == 1  # several processes take each round together
        for numbers in known.unclaimed_first(todo) if alone else todo:
            if alone:
                logps |= known.read(numbers)  # by another run, meanwhile
            if not all(number in logps for number in numbers):
                scored = scorer.lanes.run([partial(_score, scorer, parts[number]) for number in numbers])
                for found in world.collect(list(zip(numbers, scored, strict=True))):
                    for number, values in found:
                        if number not in logps:
                            logps[number] = values
                            known.add(number, values)
            yield Progress("prepare", sum(map(len, logps.values())), len(rows))
        if problem := world.tell(known.problem):
            yield Note(problem)
    return [tuple(row) for number in range(len(parts)) for row in logps[number].tolist()]


def _rounds(
    scorer: Scorer, parts: Sequence[Sequence[TokenRow]], missing: Sequence[int], room: int
) -> Iterator[Sequence[int]]:
    """Yield the numbers of the missing packs that this process computes side by side, round by round."""
    sizes = [sum(map(num_tokens, parts[number])) for number in missing]
    turns = [turn for turn, _ in shares.turns(sizes, ranks.world().place)]
    for together in rounds([sizes[turn] for turn in turns], scorer.lanes.count, scorer.lanes.count * room):
        yield [missing[turns[index]] for index in together]


def _key(identity: Any, part: Sequence[TokenRow]) -> bytes:
    rows = [[row.prompt, row.answers, row.learned] for row in part]
    return sha256(msgspec.msgpack.encode([identity, rows])).digest()


@torch.no_grad()
def _score(scorer: Scorer, rows: Sequence[TokenRow]) -> Array:
    scorer.model.eval()
    logps: Array = scorer(rows).logps.float().cpu().numpy()
    return logps
