"""However many processes check the rows, what is found is the same; few rows are checked without any other process."""

import json
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from runner.data.checking import processes
from runner.data.checking.processes import Pool, Processes
from runner.data.containers import array, lines, parquet, table
from runner.data.splits import Selection
from runner.data.survey import TokenLimit, survey
from runner.errors import DataError
from tests.data.mutations import damaged
from tests.data.samples import Raw, foundry, simple_pair, trl, write_lines

BLOCK_BYTES, ROWS_A_BLOCK = 150, 2
"""So small that a file of a few rows has several blocks."""
LIMIT = TokenLimit(120, lambda rows: [100 + 21 * (number % 2) for number, _ in enumerate(rows)])


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(Processes(2, after=0)) as pool:
        yield pool


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", BLOCK_BYTES)
    for container in (array, table, parquet):
        monkeypatch.setattr(container, "ROWS_A_BLOCK", ROWS_A_BLOCK)


def alike(selection: Selection, pool: Pool) -> bool:
    """Say whether this process and those of the pool find the same in files, or refuse them with the same sentence."""
    return outcome(selection, Pool(Processes(1))) == outcome(selection, pool)


def outcome(selection: Selection, pool: Pool) -> object:
    try:
        return survey(selection, LIMIT, pool=pool)
    except DataError as error:
        return str(error)


def differing(numbers: Sequence[int], pool: Pool) -> list[int]:
    """Return which damaged files come out differently."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            suffix, content, keys = damaged(number)
            path = Path(folder, f"data{suffix}")
            path.write_bytes(content)
            if not alike(Selection(train=str(path), **keys), pool):
                found.append(number)
            path.unlink()
    return found


def test_damaged_files_come_out_the_same(pool: Pool) -> None:
    assert differing(range(120), pool) == []


@pytest.mark.slow
@pytest.mark.exhaustive
def test_many_damaged_files_come_out_the_same(pool: Pool) -> None:
    assert differing(range(120, 20_120), pool) == []


@pytest.mark.parametrize("keys", [{}, {"validation_fraction": 0.3}, {"validation_fraction": 0.3, "max_rows": 25}])
def test_keys_that_no_format_reads_are_named_as_they_come(tmp_path: Path, pool: Pool, keys: Raw) -> None:
    """What a block says of such keys depends on those met before, of which 50 are named."""
    chance = Random(0)
    extra = [{f"key{chance.randrange(70)}": chance.choice([1, None, "x"])} for _ in range(120)]
    rows = [trl(simple_pair(number)) | more for number, more in enumerate(extra)]
    write_lines(tmp_path / "data.jsonl", rows)
    selection = Selection(train=str(tmp_path / "data.jsonl"), kind="preference", **keys)
    assert len(survey(selection).findings) > 10
    assert alike(selection, pool)


def test_files_and_splits_are_read_in_their_order(tmp_path: Path, pool: Pool) -> None:
    for name, numbers in {"a": range(20), "b": range(15, 30), "held": range(25, 60)}.items():
        write_lines(tmp_path / f"{name}.jsonl", [foundry(simple_pair(number)) for number in numbers])
    train = [str(tmp_path / "b.jsonl"), str(tmp_path / "a.jsonl")]
    assert alike(Selection(train=train, validation=str(tmp_path / "held.jsonl"), kind="preference"), pool)


def test_rows_of_a_table_that_lack_cells_are_reported_the_same(tmp_path: Path, pool: Pool) -> None:
    rows = [f"Why {number}?,Gas" + ("" if number == 7 else ",No") for number in range(20)]
    (tmp_path / "data.csv").write_text("\n".join(["prompt,chosen,rejected", *rows]))
    selection = Selection(train=str(tmp_path / "data.csv"), kind="preference")
    assert "the row has 2 cells, but the header on line 1 has 3" in str(outcome(selection, pool))
    assert alike(selection, pool)


def test_an_unreadable_file_is_refused_in_its_turn(tmp_path: Path, pool: Pool) -> None:
    write_lines(tmp_path / "a.jsonl", [trl(simple_pair(number)) for number in range(20)])
    (tmp_path / "b.jsonl").write_text(json.dumps({"rows": 1}))
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    assert "b.jsonl:1" in str(outcome(Selection(train=files, kind="preference"), pool))
    assert alike(Selection(train=files, kind="preference"), pool)
    # Nobody asks for rows of the second file.
    assert alike(Selection(train=files, kind="preference", max_rows=20), pool)


@pytest.mark.parametrize(
    "name",
    ["gsm8k_test.sft.jsonl", "hh_harmless_test.dpo.jsonl", "llamafactory_en.dpo.jsonl", "shape_alpaca.sft.json",
     "llamafactory_identity.sft.jsonl", "shape_hh_rlhf.dpo.jsonl", "shape_sharegpt.dpo.json", "shape_trl.dpo.jsonl"],
)  # fmt: skip
def test_real_files_come_out_the_same(name: str, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.environ.get("RUNNER_TEST_DATA")
    if not folder:
        pytest.skip("RUNNER_TEST_DATA is not set; it names the folder with the real data")
    monkeypatch.setattr(lines, "BLOCK_BYTES", 20_000)
    kind = "preference" if ".dpo." in name else "conversation"
    assert alike(Selection(train=str(Path(folder, name)), kind=kind, validation_fraction=0.1), pool)


def test_a_process_that_the_system_ended_is_done_without(tmp_path: Path) -> None:
    write_lines(tmp_path / "data.jsonl", [trl(simple_pair(number)) for number in range(50)])
    selection = Selection(train=str(tmp_path / "data.jsonl"), kind="preference")
    with Pool(Processes(2, after=0)) as pool:
        assert alike(selection, pool)
        for worker in pool.workers:
            os.kill(worker.pid, signal.SIGKILL)
        assert alike(selection, pool)


def test_few_rows_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Worker", None)  # starting one would fail
    write_lines(tmp_path / "data.jsonl", [trl(simple_pair(number)) for number in range(50)])
    assert survey(Selection(train=str(tmp_path / "data.jsonl"), kind="preference")).splits["train"].rows == 50
    assert Processes.usual(1000) == Processes(1)


def test_no_process_is_started_where_the_first_pieces_may_have_all_rows_wanted(tmp_path: Path) -> None:
    write_lines(tmp_path / "data.jsonl", [trl(simple_pair(number)) for number in range(50)])
    with Pool(Processes(2)) as pool:
        outcome(Selection(train=str(tmp_path / "data.jsonl"), kind="preference", max_rows=5), pool)
        assert not pool.workers


def test_processes_end_with_their_pool(tmp_path: Path) -> None:
    write_lines(tmp_path / "data.jsonl", [trl(simple_pair(number)) for number in range(50)])
    with Pool(Processes(2, after=0)) as pool:
        outcome(Selection(train=str(tmp_path / "data.jsonl"), kind="preference"), pool)
        pids = [worker.pid for worker in pool.workers]
        assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
