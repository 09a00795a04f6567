"""What the untouched model thinks is computed once, ends in the same bits however it came, and outlives damage."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.backends.local.scoring import reference_cache
from runner.backends.local.scoring.reference_cache import ReferenceLogps
from runner.backends.local.scoring.scorer import Scorer
from runner.methods import Scores
from runner.models.chat.tokenizer import TokenRow
from runner.record.events import Event, Note, Progress
from tests import tiny
from tests.backends.local import plain
from tests.backends.local.plain import AWKWARD

Logps = list[tuple[float, ...]]
IDENTITY = ["a model", "float32", 1]
ROOM = 60


class Counting(Scorer):
    """A scorer that counts its calls and can be made to die at one of them."""

    calls, last = 0, 1_000_000

    def __call__(self, rows: Sequence[TokenRow]) -> Scores:
        self.calls += 1
        if self.calls > self.last:
            raise KeyboardInterrupt
        return super().__call__(rows)


@pytest.fixture(scope="module")
def counting(tiny_model: Path) -> Counting:
    return Counting(plain.lively(tiny_model))


@pytest.fixture
def scorer(counting: Counting) -> Counting:
    counting.calls, counting.last = 0, 1_000_000
    return counting


def reference(path: Path, scorer: Scorer, rows: Sequence[TokenRow], room: int = ROOM) -> ReferenceLogps:
    return ReferenceLogps(path, rows, room, IDENTITY, lambda: nullcontext(scorer))


def compute(
    path: Path, scorer: Scorer, rows: Sequence[TokenRow], room: int, identity: Any
) -> Generator[Event, None, Logps]:
    """Compute the values of all rows."""
    found = ReferenceLogps(path, rows, room, identity, lambda: nullcontext(scorer))
    yield from found.compute(range(len(rows)), "train")
    return [found[number] for number in range(len(rows))]


def compute_some(found: ReferenceLogps, numbers: Iterable[int]) -> list[Event]:
    return list(found.compute(numbers, "train"))


def finished(events: Generator[Event, None, Logps]) -> tuple[Logps, list[Event]]:
    found = []
    while True:
        try:
            found.append(next(events))
        except StopIteration as stop:
            return stop.value, found


def test_values_are_the_models_own(scorer: Counting, tiny_model: Path, tmp_path: Path) -> None:
    found, events = finished(compute(tmp_path / "reference.db", scorer, AWKWARD, ROOM, IDENTITY))
    expected = plain.all_logps(plain.lively(tiny_model), AWKWARD).detach()
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-4)
    reported = [event for event in events if isinstance(event, Progress)]
    assert len(reported) == scorer.calls > 2
    assert [event.done for event in reported] == list(range(1, scorer.calls + 1))
    assert (reported[-1].total, reported[-1].step, reported[-1].what) == (
        scorer.calls,
        "train",
        "reference log-probabilities",
    )


def test_only_the_packs_of_the_rows_asked_for_are_computed(scorer: Counting, tmp_path: Path) -> None:
    found = reference(tmp_path / "reference.db", scorer, AWKWARD, room=1)
    compute_some(found, [3])
    assert scorer.calls == 1
    compute_some(found, [3, 1])
    assert scorer.calls == 2
    with pytest.raises(AssertionError):
        found[0]
    assert not found.complete
    compute_some(found, range(len(AWKWARD)))
    assert scorer.calls == len(AWKWARD)
    assert found.complete


@pytest.mark.parametrize("size", [4, 4096])
def test_values_are_the_same_to_the_last_bit_in_whatever_order_rows_are_asked_for(
    size: int, scorer: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_cache, "block_rows", lambda num_rows: size)
    whole, _ = finished(compute(tmp_path / "whole.db", scorer, AWKWARD, ROOM, IDENTITY))
    found = reference(tmp_path / "lazy.db", scorer, AWKWARD)
    for batch in ([7, 2], [10, 0, 2], [1, 3, 4, 5, 6, 8, 9]):
        compute_some(found, batch)
    assert [found[number] for number in range(len(AWKWARD))] == whole


def test_the_model_is_not_lent_where_everything_is_known(scorer: Counting, tmp_path: Path) -> None:
    path = tmp_path / "reference.db"
    compute_some(reference(path, scorer, AWKWARD), range(len(AWKWARD)))

    def lend() -> Any:
        raise AssertionError("a second copy of the model would be loaded for nothing")

    found = ReferenceLogps(path, AWKWARD, ROOM, IDENTITY, lend)
    assert compute_some(found, range(len(AWKWARD))) == []
    assert found.complete


def test_a_model_that_was_training_is_training_again_afterwards(scorer: Counting, tmp_path: Path) -> None:
    scorer.model.train()
    compute_some(reference(tmp_path / "reference.db", scorer, AWKWARD), [0])
    assert scorer.model.training


def test_a_second_call_computes_nothing(scorer: Counting, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "reference.db"
    first, _ = finished(compute(path, scorer, AWKWARD, ROOM, IDENTITY))
    scorer.last = scorer.calls
    again, events = finished(compute(path, scorer, AWKWARD, ROOM, IDENTITY))
    assert again == first
    assert events == []


def test_a_killed_run_leaves_what_it_knew_and_the_rest_comes_out_the_same(scorer: Counting, tmp_path: Path) -> None:
    whole, _ = finished(compute(tmp_path / "whole.db", scorer, AWKWARD, ROOM, IDENTITY))
    calls, path = scorer.calls, tmp_path / "killed.db"
    scorer.calls, scorer.last = 0, 2
    with pytest.raises(KeyboardInterrupt):
        finished(compute(path, scorer, AWKWARD, ROOM, IDENTITY))
    scorer.calls, scorer.last = 0, 1_000_000
    found, _ = finished(compute(path, scorer, AWKWARD, ROOM, IDENTITY))
    assert found == whole
    assert scorer.calls == calls - 2


def test_runs_at_the_same_time_share_the_computing(scorer: Counting, tmp_path: Path) -> None:
    whole, events = finished(compute(tmp_path / "whole.db", scorer, AWKWARD, ROOM, IDENTITY))
    scorer.calls = 0
    one, other = (compute(tmp_path / "shared.db", scorer, AWKWARD, ROOM, IDENTITY) for _ in range(2))
    next(one), next(other)
    assert scorer.calls == 2
    assert finished(one)[0] == finished(other)[0] == whole
    assert scorer.calls == len(events)


def test_what_a_run_had_begun_when_it_was_killed_is_computed_by_the_next_one(scorer: Counting, tmp_path: Path) -> None:
    finished(compute(tmp_path / "reference.db", scorer, AWKWARD, ROOM, IDENTITY))
    with sqlite3.connect(tmp_path / "reference.db") as connection:
        connection.execute("UPDATE logps SET logps = x''")
    connection.close()
    calls, scorer.calls = scorer.calls, 0
    found, _ = finished(compute(tmp_path / "reference.db", scorer, AWKWARD, ROOM, IDENTITY))
    assert len(found) == len(AWKWARD)
    assert scorer.calls == calls


@pytest.mark.parametrize(
    "change",
    [{"identity": ["another model", "float32", 1]}, {"identity": ["a model", "float32", 2]}, {"rows": AWKWARD[1:]}],
    ids=["model", "threads", "rows"],
)
def test_another_model_or_other_rows_find_nothing_of_it(change: Any, scorer: Counting, tmp_path: Path) -> None:
    path = tmp_path / "reference.db"
    finished(compute(path, scorer, AWKWARD, 1, IDENTITY))
    scorer.calls = 0
    given = {"rows": AWKWARD, "identity": IDENTITY} | change
    finished(compute(path, scorer, given["rows"], 1, given["identity"]))
    assert scorer.calls == (0 if "rows" in change else len(AWKWARD))


def test_unlearned_tokens_are_part_of_what_is_known(scorer: Counting, tmp_path: Path) -> None:
    path = tmp_path / "reference.db"
    all_learned = TokenRow([5, 6], ([7, 8],), ([True, True],))
    one, _ = finished(compute(path, scorer, [all_learned], ROOM, IDENTITY))
    other, _ = finished(compute(path, scorer, [TokenRow([5, 6], ([7, 8],), ([False, True],))], ROOM, IDENTITY))
    assert one != other


DAMAGE = {
    "no database": lambda path: path.write_bytes(b"not a database" * 1000),
    "another table": lambda path: another_table(path),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def another_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE logps")
        connection.execute("CREATE TABLE logps (something TEXT)")
    connection.close()


@pytest.mark.parametrize("harm", DAMAGE)
def test_a_damaged_cache_is_reported_and_everything_computed(harm: str, scorer: Counting, tmp_path: Path) -> None:
    path = tmp_path / "reference.db"
    whole, _ = finished(compute(path, scorer, AWKWARD, ROOM, IDENTITY))
    DAMAGE[harm](path)
    calls, scorer.calls = scorer.calls, 0
    found, events = finished(compute(path, scorer, AWKWARD, ROOM, IDENTITY))
    assert found == whole
    assert scorer.calls == calls
    notes = [event.text for event in events if isinstance(event, Note)]
    assert len(notes) == 1
    assert notes[0].startswith(f"{path}: ")


def half_gone(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def a_short_value(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE logps SET logps = x'00'")
    connection.close()


def a_bit_of_a_value(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        for pack, kept in connection.execute("SELECT pack, logps FROM logps").fetchall():
            torn = kept[:-1] + bytes([kept[-1] ^ 1])
            connection.execute("UPDATE logps SET logps = ? WHERE pack = ?", (torn, pack))
    connection.close()


@pytest.mark.parametrize("harm", [half_gone, a_short_value, a_bit_of_a_value])
def test_what_is_torn_is_computed_again_and_kept(harm: Any, scorer: Counting, tmp_path: Path) -> None:
    path = tmp_path / "reference.db"
    whole, _ = finished(compute(path, scorer, AWKWARD, ROOM, IDENTITY))
    harm(path)
    calls, scorer.calls = scorer.calls, 0
    assert finished(compute(path, scorer, AWKWARD, ROOM, IDENTITY))[0] == whole
    assert scorer.calls == calls
    scorer.calls = 0
    assert finished(compute(path, scorer, AWKWARD, ROOM, IDENTITY))[0] == whole
    assert scorer.calls == 0


def test_where_no_folder_can_be_made_everything_is_computed(scorer: Counting, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found, events = finished(compute(tmp_path / "file" / "reference.db", scorer, AWKWARD, ROOM, IDENTITY))
    assert len(found) == len(AWKWARD)
    assert any(isinstance(event, Note) for event in events)


ANOTHER = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from runner.backends.local.scoring.scorer import Scorer
from tests.backends.local import plain
from tests.backends.local.scoring.test_reference_cache import AWKWARD, IDENTITY, compute, finished
scorer = Scorer(plain.lively(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([finished(compute(Path(sys.argv[2]), scorer, AWKWARD * 20, 1, IDENTITY))[0] for _ in range(2)]))
"""


@pytest.mark.slow
def test_two_processes_at_once_agree(tmp_path: Path) -> None:
    folder, path = tiny.make_model(tmp_path / "model"), tmp_path / "reference.db"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ANOTHER, folder, path], cwd=Path(__file__).parents[4], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = [process.communicate("go\n", timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0] == said[1] != ""
