"""Several processes come to what one comes to, write once, and end and go on together."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from safetensors.torch import load_file

from runner import ranks
from runner.backends.local import machine, shares
from runner.events import Failed, Metrics, Started, StepDone, Stopped
from runner.journal import read
from tests.test_resume import arguments, the_run, wait_for_metrics

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
LONG = "dpo.n_epochs=2000"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("sizes", [[7], [4, 4], [9, 1, 5, 3, 8], list(range(1, 12))])
def test_every_pack_counts_once_and_all_have_as_many(sizes: list[int], count: int) -> None:
    dealt = [shares.turns(sizes, ranks.Place(number, count)) for number in range(count)]
    assert sorted(number for turns in dealt for number, counts in turns if counts) == list(range(len(sizes)))
    assert len({len(turns) for turns in dealt}) == 1


def test_one_process_takes_the_packs_as_they_are() -> None:
    assert shares.turns([5, 1, 9], ranks.Place()) == [(0, True), (1, True), (2, True)]


def test_the_larger_pack_goes_to_who_has_less() -> None:
    assert [shares.turns([9, 1, 8, 2], ranks.Place(number, 2)) for number in (0, 1)] == [
        [(0, True), (3, True)],
        [(1, True), (2, True)],
    ]


def test_the_place_is_torchruns() -> None:
    told = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "1"}
    assert ranks.here(told | {"MASTER_ADDR": "one"}) == ranks.Place(3, 4, 1, 2)
    assert ranks.here(told) == ranks.Place(), "some schedulers set a part of them for purposes of their own"


def test_processes_share_the_cores_of_their_machine() -> None:
    two = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    two |= {"MASTER_ADDR": "one", "MASTER_PORT": "1", "OMP_NUM_THREADS": "1"}
    cores = machine.usable_cores()
    assert machine.choose_threads(None, two) == (max(1, cores // 2), f"{cores} cores for 2 processes")
    assert machine.choose_threads(None, two | {"OMP_NUM_THREADS": "3"}) == (3, "OMP_NUM_THREADS")


class Command:
    """A request given to some processes, or to one without torchrun, in a folder of its own."""

    def __init__(self, folder: Path, count: int, *line: str) -> None:
        folder.mkdir(exist_ok=True)
        torchrun = [*TORCHRUN, str(count)] if count > 1 else [sys.executable]
        self.folder = folder
        self.process = subprocess.Popen(
            [*torchrun, "-m", "runner", *line], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONWARNINGS": "ignore", "COLUMNS": "200", "RUNNER_CACHE": str(folder / "cache")},
        )  # fmt: skip

    def end(self) -> str:
        """Wait for it; return what it said on standard output, and on standard error behind it."""
        output, errors = self.process.communicate(timeout=150)
        return output + errors

    def done(self) -> Path:
        """Wait until it has ended well; return the run's folder."""
        said = self.end()
        assert self.process.returncode == 0, said
        return the_run(self.folder)

    def numbers(self) -> list[int]:
        """Return the ids of torchrun's processes, the first one's first."""
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True)
        first = json.loads((the_run(self.folder) / "owner.json").read_bytes())["pid"]
        return [first, *(pid for pid in map(int, found.stdout.split()) if pid != first)]


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[object]:
    begun: list[Command] = []

    def begin(name: str, count: int, *line: str) -> Command:
        begun.append(Command(tmp_path / name, count, *line))
        return begun[-1]

    yield begin
    for command in begun:
        command.process.kill()


def close(one: Path, other: Path, tolerance: float = 1e-5) -> None:
    """Require that two runs have measured the same and ended in the same weights, but for the rounding of sums."""
    (weights,) = [*one.glob("model/*.safetensors"), *one.glob("model/*/*.safetensors")]
    first, second = load_file(weights), load_file(other / weights.relative_to(one))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert (second[name] - tensor).norm() <= tolerance * tensor.norm(), name
    measured, again = (values(run) for run in (one, other))
    assert again == pytest.approx(measured, rel=10 * tolerance, abs=10 * tolerance)


def values(run: Path) -> dict[str, float]:
    events = [record.event for record in read(run / "journal.jsonl") if isinstance(record.event, Metrics)]
    found = [(f"{event.at} {name}", value) for event in events for name, value in event.values.items()]
    assert len(found) == len(dict(found)), "measured twice"
    return {name: value for name, value in found if "system/" not in name}


UNEVEN = ["dpo.batch_size=5", "dpo.n_epochs=3", "backend.lora.dropout=0"]
FULL = [*UNEVEN, "backend.tuning=full", "backend.learning_rate=1e-3", "backend.ema_decay=0.9", "evaluation.keep=best"]
SHARD = "backend.runtime.shard=true"


@pytest.mark.slow
@pytest.mark.parametrize("more", [UNEVEN, FULL], ids=["lora", "full"])
def test_two_processes_come_to_what_one_comes_to(more, commands, tiny_model: Path, pairs_file: Path) -> None:  # type: ignore[no-untyped-def]
    line = arguments(tiny_model, pairs_file, *more)
    one = commands("one", 1, *line).done()
    two = commands("two", 2, *line).done()
    parts = commands("parts", 2, *line, SHARD).done()
    close(one, two)
    close(one, parts)
    assert reference(one) == reference(two)
    assert [path.name for path in two.glob("checkpoints/*")] == [path.name for path in one.glob("checkpoints/*")]


def reference(run: Path) -> dict[bytes, bytes]:
    """Return what the cache beside a run holds."""
    path = run.parent.parent / "cache" / "reference.db"
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT pack, logps FROM logps"))


@pytest.mark.slow
def test_with_one_cut_dropout_draws_the_same_numbers_too(commands, tiny_models, pairs_file: Path) -> None:  # type: ignore[no-untyped-def]
    row_by_row = ("dpo.batch_size=5", "dpo.n_epochs=3", "backend.runtime.tokens_at_once=1")
    line = arguments(tiny_models("gpt2"), pairs_file, *row_by_row)
    close(commands("one", 1, *line).done(), commands("parts", 3, *line, SHARD).done())


@pytest.mark.slow
def test_only_the_first_process_writes_and_speaks(commands, tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    line = [*arguments(tiny_model, pairs_file, *UNEVEN), "tracking=mlflow"]
    first = commands("both", 2, *line)
    said = first.end()
    assert first.process.returncode == 0, said
    assert said.count("status  finished") == 1
    run = the_run(tmp_path / "both")
    with closing(sqlite3.connect(tmp_path / "both" / "mlflow.db")) as connection:
        assert connection.execute("SELECT name, status FROM runs").fetchall() == [(run.name, "FINISHED")]
    events = [record.event for record in read(run / "journal.jsonl")]
    assert sum(isinstance(event, Started) for event in events) == 1
    done = [event.step for event in events if isinstance(event, StepDone)]
    assert done == ["prepare", "train", "save", "evaluate", "sample"]
    assert len(list((tmp_path / "both" / "outputs").rglob("run.txt"))) == 1

    before = (run / "journal.jsonl").read_bytes()
    second = commands("both", 2, *line)
    assert "finished before" in second.end()
    assert second.process.returncode == 0
    assert (run / "journal.jsonl").read_bytes() == before
    third = commands("both", 2, *line, "again=true")
    assert third.end().count("status  finished") == 1
    assert len(list((tmp_path / "both" / "runs").glob("*.before-*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "count"), [(1, 2), (0, 1)], ids=["another", "first"])
def test_a_lost_process_ends_the_others_and_the_command_goes_on(  # type: ignore[no-untyped-def]
    victim: int, count: int, commands, tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    line = arguments(tiny_model, pairs_file, *UNEVEN, LONG, "backend.max_steps=200", "evaluation.every=1000")
    killed = commands("killed", 2, *line)
    wait_for_metrics(tmp_path / "killed", 8)
    os.kill(killed.numbers()[victim], signal.SIGKILL)
    said = killed.end()
    assert killed.process.returncode == 1
    assert said.count("torchrun: one of the 2 processes was lost") == (2 if victim else 1), said  # status, and error
    run = the_run(tmp_path / "killed")
    last = read(run / "journal.jsonl")[-1].event
    assert isinstance(last, Failed if victim else Metrics)
    commands("killed", count, *line).done()
    close(commands("whole", 1, *line).done(), run, 1e-3)  # rounding grows in 200 steps


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_at_one_step_with_a_checkpoint(  # type: ignore[no-untyped-def]
    number: int, commands, tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    line = arguments(tiny_model, pairs_file, *UNEVEN, LONG, "backend.max_steps=200", SHARD, "evaluation.every=1000")
    command = commands("stopped", 2, *line)
    wait_for_metrics(tmp_path / "stopped", 8)
    command.process.send_signal(number)
    said = command.end()
    assert said.count("give the same command again to go on") == 1, said
    run = the_run(tmp_path / "stopped")
    records = read(run / "journal.jsonl")
    assert isinstance(records[-1].event, Stopped)
    at = max(record.event.at for record in records if isinstance(record.event, Metrics))
    assert (run / "checkpoints" / f"step-{at:08d}").exists()
    commands("stopped", 1, *line).done()
    close(commands("whole", 1, *line).done(), run, 1e-3)  # rounding grows in 200 steps


@pytest.mark.slow
def test_what_cannot_be_is_refused_once(commands, tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    line = arguments(tiny_model, pairs_file)
    sweep = commands("sweep", 2, "-m", *line, "seed=1,2").end()
    assert "torchrun: runs one request at a time" in sweep
    wrong = commands("wrong", 2, *line, "dpo.beta=-1").end()
    assert wrong.count("dpo.beta: got") == 1, wrong
    assert not (tmp_path / "wrong" / "runs").exists()


@pytest.mark.slow
def test_an_error_of_another_process_is_told_by_it_and_journaled(  # type: ignore[no-untyped-def]
    commands, tiny_model: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb = tmp_path / "failing"
    disturb.mkdir()
    (disturb / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from runner.backends.local import learner\n"
        "    from runner.errors import RunnerError\n"
        "    def fail(*_):\n"
        "        raise RunnerError('the second process has run out of luck.')\n"
        "    learner.rate = fail\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(disturb), prepend=os.pathsep)
    command = commands("failed", 2, *arguments(tiny_model, pairs_file))
    said = command.end()
    assert command.process.returncode == 1
    last = read(the_run(tmp_path / "failed") / "journal.jsonl")[-1].event
    assert last == Failed("the second process has run out of luck.")
    assert said.count("has run out of luck") == 2, said  # status, and error
