"""Reference log-probabilities: those of each answer under the model as it was before training.

The reference of preference tuning is the starting model itself, so no second model is loaded for an adapter's run.
They are computed when a batch first needs them, depend on the model and the tokens alone, and are kept in the user's
cache, where later epochs, runs and trials find them; trials that run at the same time share the computing. The unit is
a pack of neighbours in the data: its rows are computed together, so that a value depends neither on the order of
training nor on what was known before.
"""

import math
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from runner import distributed
from runner.backends.local.parallel.schedule import Schedule, pack_neighbours
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training.token_store import TokenStore, block_rows
from runner.models.chat.tokenizer import TokenRow
from runner.record.events import Event, Note, Progress
from runner.training.examples import num_tokens

PHASE = "reference log-probabilities"
Array = NDArray[np.float32]
T = TypeVar("T")


class Cache:
    """Packs' log-probabilities by a hash of model and tokens, in an SQLite file that any process may write to.

    Its journal is one that holds on a network folder, too, where machines share the cache. It is not waited for
    until it is on the disk: what a power cut tears is found out by its checksum.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # isolation_level=None: each statement is a transaction of its own, and nobody holds the file while
        # computing. Others wait for a writer up to 60 s.
        self.connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        # Not WAL, whose shared memory needs all processes on one machine (https://sqlite.org/wal.html).
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
        # One statement, so that of two processes one gets it. The claim of a process that was killed costs a
        # delay and no more: claimed packs come last, and are computed if they are still missing then.
        return self.connection.execute("INSERT OR IGNORE INTO logps VALUES (?, x'')", (key,)).rowcount > 0

    def put(self, key: bytes, logps: Array) -> None:
        """Keep the log-probabilities of a pack."""
        # Little-endian whatever the machine, as machines may share the file.
        values = logps.astype("<f4").tobytes()
        self.connection.execute("INSERT OR REPLACE INTO logps VALUES (?, ?)", (key, _checksum(key, values) + values))


def _checksum(key: bytes, values: bytes) -> bytes:
    return crc32(key + values).to_bytes(4, "little")


class _Known:
    """What the cache knows of some packs, as long as it can be used; then the note on why it cannot be."""

    def __init__(self, path: Path, keys: Mapping[int, bytes], shapes: Mapping[int, tuple[int, int]]) -> None:
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

    def _ask(self, call: Callable[..., T], number: int, *more: object) -> T | None:
        """Call a method of the cache for a pack; None where it cannot be used."""
        try:
            return call(self.cache, self.keys[number], *more) if self.cache else None
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return None

    # A cache that cannot be used costs time, never the run.
    def _give_up(self, error: Exception) -> None:
        self.close()
        self.problem = f"{self.path}: {error}; the reference's log-probabilities are computed without it"


class ReferenceLogps:
    """The reference's log-probability of each answer of some rows, computed when it is first asked for.

    `room` is the most tokens of a pack, `identity` all that decides the values apart from the tokens: model, type,
    layout, threads. `reference` lends the model as it was before training. What the cache at `path` knows is not
    computed; where the cache cannot be used, a note says so and the rest is computed. The ranks of one run share the
    computing, and the first alone reads and writes the cache; so do runs at the same time.
    """

    def __init__(
        self,
        path: Path,
        rows: Sequence[TokenRow],
        room: int,
        identity: object,
        reference: Callable[[], AbstractContextManager[Scorer]],
    ) -> None:
        self._path, self._rows, self._room, self._identity, self._reference = path, rows, room, identity, reference
        self._known = np.zeros(len(rows), bool)
        self._logps = np.empty((len(rows), len(rows[0].answers) if len(rows) else 0), np.float32)
        self._problem = ""
        self._starts: dict[int, list[int]] = {}

    @property
    def complete(self) -> bool:
        """Whether the values of all rows are known."""
        return bool(self._known.all())

    def __getitem__(self, number: int) -> tuple[float, ...]:
        """Return the values of a row's answers, in nats; `compute` has to have been asked for them before."""
        assert self._known[number]
        return tuple(self._logps[number].tolist())

    def compute(self, numbers: Iterable[int], step: str) -> Generator[Event, None, None]:
        """Make the values of some rows known, and report how far that is as progress of `step`."""
        packs = {pack.start: pack for pack in map(self._pack_of, numbers) if not self._known[pack.start]}
        if not packs:
            return
        group = distributed.group()
        parts = {start: self._rows[pack.start : pack.stop] for start, pack in sorted(packs.items())}
        keys = {start: _key(self._identity, part) for start, part in parts.items()}
        shapes = {start: (len(part), self._logps.shape[1]) for start, part in parts.items()}
        with closing(_Known(self._path, keys, shapes)) as known:
            # A cache that has failed once is not asked again in this run: its note would come once per batch.
            if group.rank.first and not self._problem:
                known.open()
            # From rank 0 alone: ranks that disagreed on what is missing would wait for each other for ever.
            self._keep(group.broadcast(known.read(parts)))
            missing = {start: part for start, part in parts.items() if not self._known[start]}
            if missing:
                with self._reference() as scorer, _evaluating(scorer.model):
                    for _ in self._compute(scorer, missing, known):
                        yield Progress(step, int(sum(self._known[start] for start in parts)), len(parts), what=PHASE)
            if problem := group.broadcast(known.problem):
                self._problem = problem
                yield Note(problem)

    def _compute(self, scorer: Scorer, missing: Mapping[int, Sequence[TokenRow]], known: _Known) -> Iterator[None]:
        """Compute packs round by round, those first that no other run is computing; pause after each round."""
        group = distributed.group()
        first, lanes = list(missing), scorer.lanes.count
        # By the room of a pack, as a pack's values must not depend on how the lanes' rooms are rounded.
        rounds = Schedule(group.rank, lanes, lanes * self._room).rounds([_size(part) for part in missing.values()])
        todo = ([first[number] for number, _ in together] for together in rounds)
        alone = group.rank.world_size == 1  # several ranks take each round together
        for starts in known.unclaimed_first(todo) if alone else todo:
            if alone:
                self._keep(known.read(starts))  # by another run, meanwhile
            if not all(self._known[start] for start in starts):
                scored = scorer.lanes.run([partial(_score, scorer, missing[start]) for start in starts])
                # Each rank computes a share of the round; a pack that fills a short deal comes twice, and counts once.
                for found in group.all_gather(list(zip(starts, scored, strict=True))):
                    for start, values in found:
                        if not self._known[start]:
                            self._keep({start: values})
                            known.add(start, values)
            yield

    def _keep(self, found: Mapping[int, Array]) -> None:
        for start, logps in found.items():
            self._logps[start : start + len(logps)] = logps
            self._known[start : start + len(logps)] = True

    def _pack_of(self, number: int) -> range:
        """Return the rows of a row's pack: neighbours of the same block, as many as there is room for."""
        # A pack does not reach over a block's end, so that asking for a row tokenises its block and no other.
        size = block_rows(len(self._rows))
        first = number - number % size
        last = min(first + size, len(self._rows))
        if first not in self._starts:
            if isinstance(self._rows, TokenStore):
                lengths = self._rows.lengths(first // size)
            else:
                lengths = [num_tokens(self._rows[each]) for each in range(first, last)]
            self._starts[first] = [first + run[0] for run in pack_neighbours(lengths, self._room)]
        starts = self._starts[first]
        after = bisect_right(starts, number)
        return range(starts[after - 1], starts[after] if after < len(starts) else last)


def _size(part: Sequence[TokenRow]) -> int:
    return sum(map(num_tokens, part))


def _key(identity: object, part: Sequence[TokenRow]) -> bytes:
    # Token ids, not texts: two tokenizers, or two length limits, are two keys.
    rows = [[row.prompt, row.answers, row.learned] for row in part]
    return sha256(msgspec.msgpack.encode([identity, rows])).digest()


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Within the block dropout is off."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.no_grad()
def _score(scorer: Scorer, rows: Sequence[TokenRow]) -> Array:
    logps: Array = scorer(rows).logps.float().cpu().numpy()
    return logps
