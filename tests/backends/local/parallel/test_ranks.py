"""Several processes come to what one results in, write once, and end and resume together."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from itertools import count as numbers
from pathlib import Path
from typing import Protocol

import pytest
from safetensors.torch import load_file
from torch.distributed import TCPStore

from runner import distributed
from runner.backends.local.machine import hardware
from runner.backends.local.parallel import schedule
from runner.record.events import Failed, Metrics, Started, StepDone, Stopped
from runner.record.journal import read
from tests import warm
from tests.execution.test_resume import arguments, the_run
from tests.waiting import until

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node"]
OneProcess = Callable[[tuple[str, ...]], Path]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("sizes", [[7], [4, 4], [9, 1, 5, 3, 8], list(range(1, 12))])
def test_every_pack_counts_once_and_all_have_as_many(sizes: list[int], count: int) -> None:
    dealt = [schedule.assign_packs(sizes, distributed.Rank(number, count)) for number in range(count)]
    assert sorted(number for turns in dealt for number, counts in turns if counts) == list(range(len(sizes)))
    assert len({len(turns) for turns in dealt}) == 1


def test_one_process_takes_the_packs_in_their_order() -> None:
    assert schedule.assign_packs([5, 1, 9], distributed.Rank()) == [(0, True), (1, True), (2, True)]


def test_the_larger_pack_goes_to_the_process_that_has_less_work() -> None:
    assert [schedule.assign_packs([9, 1, 8, 2], distributed.Rank(number, 2)) for number in (0, 1)] == [
        [(0, True), (3, True)],
        [(1, True), (2, True)],
    ]


def test_rank_and_world_size_are_read_from_torchruns_variables() -> None:
    given = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "1"}
    assert distributed.this_rank(given | {"MASTER_ADDR": "one"}) == distributed.Rank(3, 4, 1, 2)
    assert distributed.this_rank(given) == distributed.Rank(), (
        "some schedulers set a part of them for purposes of their own"
    )


def test_processes_share_the_cores_of_their_machine() -> None:
    two = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    two |= {"MASTER_ADDR": "one", "MASTER_PORT": "1", "OMP_NUM_THREADS": "1"}
    cores = hardware.usable_cores()
    assert hardware.choose_threads(None, two) == (max(1, cores // 2), f"{cores} cores for 2 processes")
    assert hardware.choose_threads(None, two | {"OMP_NUM_THREADS": "3"}) == (3, "OMP_NUM_THREADS")


class Command:
    """A request given to one process, or to several ranks, in a folder of its own.

    The ranks are forked, with the variables that torchrun gives them and its store; like torchrun, `end` sends
    SIGTERM to the others once one has failed. With `launcher` it is torchrun itself that starts them.
    """

    def __init__(self, folder: Path, count: int, *line: str, script: str = "", launcher: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self._output = folder, folder / f"output-{len(list(folder.glob('output-*')))}"
        self._environment = os.environ | {
            "PYTHONWARNINGS": "ignore", "COLUMNS": "200", "RUNNER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"
        }  # fmt: skip
        program = ["-c", script] if script else ["-m", "runner"]
        if launcher:
            (folder / "script.py").write_text(script)
            program = ["-m", *TORCHRUN, str(count), *([str(folder / "script.py")] if script else ["-m", "runner"])]
        self.processes: list[warm.Popen] = []
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        for number in range(1 if launcher else count):
            self._start([*program, *line], {} if launcher or count == 1 else self._place(number, count))

    def _place(self, number: int, count: int) -> dict[str, str]:
        """Return the variables that torchrun gives to a rank."""
        names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self._store.port, "TORCHELASTIC_USE_AGENT_STORE": True}
        return {name: str(value) for name, value in names.items()}

    def _start(self, line: list[str], place: dict[str, str]) -> None:
        with self._output.open("a") as output:
            self.processes.append(
                warm.Popen(
                    [sys.executable, *line], cwd=self.folder, env=self._environment | place,
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True,
                )
            )  # fmt: skip

    @property
    def codes(self) -> list[int | None]:
        """The exit codes so far, None of a process that runs."""
        return [process.poll() for process in self.processes]

    def end(self) -> str:
        """Wait until all have ended; return what they wrote."""
        until(lambda: any(self.codes) or None not in self.codes, f"the end of {self.folder.name}", seconds=240)
        if None in self.codes:
            self.send(signal.SIGTERM)
            until(lambda: None not in self.codes, f"the end of the other ranks of {self.folder.name}", seconds=60)
        return self._output.read_text()

    def done(self) -> Path:
        """Wait until all have ended well; return the run's folder."""
        said = self.end()
        assert not any(self.codes), said
        return the_run(self.folder)

    def send(self, number: int) -> None:
        """Send a signal to those that run."""
        for process in self.processes:
            process.send_signal(number)


class Begin(Protocol):
    """Gives a request to some processes, in the folder of a name."""

    def __call__(self, name: str, count: int, *line: str, script: str = "", launcher: bool = False) -> Command:
        """Start it."""


@contextmanager
def begun(folder: Path) -> Iterator[Begin]:
    """Within the block requests can be given; at its end no process is left."""
    commands: list[Command] = []

    def begin(name: str, count: int, *line: str, script: str = "", launcher: bool = False) -> Command:
        commands.append(Command(folder / name, count, *line, script=script, launcher=launcher))
        return commands[-1]

    try:
        yield begin
    finally:
        for command in commands:
            command.send(signal.SIGKILL)
            for process in command.processes:
                process.wait(60)


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Begin]:
    with begun(tmp_path) as begin:
        yield begin


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneProcess]:
    """Return the folder of the run that one undisturbed process makes of a request, once per request."""
    names = map(str, numbers())
    with begun(tmp_path_factory.mktemp("one-process")) as begin:
        yield cache(lambda line: begin(next(names), 1, *line).done())


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
    found = [(f"{event.step} {name}", value) for event in events for name, value in event.values.items()]
    assert len(found) == len(dict(found)), "measured twice"
    return {name: value for name, value in found if "system/" not in name}


UNEVEN = ["dpo.batch_size=5", "dpo.n_epochs=3", "backend.lora.dropout=0"]
FULL = [*UNEVEN, "backend.tuning=full", "backend.learning_rate=1e-3", "backend.ema_decay=0.9", "evaluation.keep=best"]
SHARD = "backend.runtime.shard=true"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "shard"),
    [
        pytest.param(UNEVEN, [], id="lora"),
        pytest.param(FULL, [SHARD], id="full, in parts"),
        # Which weights are trained, and whether in parts, do not meet: the two above stand for these.
        pytest.param(UNEVEN, [SHARD], id="lora, in parts", marks=pytest.mark.exhaustive),
        pytest.param(FULL, [], id="full", marks=pytest.mark.exhaustive),
    ],
)
def test_two_processes_come_to_what_one_results_in(
    more: list[str], shard: list[str], commands: Begin, one_process: OneProcess, tiny_model: Path, pairs_file: Path
) -> None:
    line = arguments(tiny_model, pairs_file, *more)
    one = one_process(tuple(line))
    two = commands("two", 2, *line, *shard).done()
    close(one, two)
    assert reference(one) == reference(two)
    assert [path.name for path in two.glob("checkpoints/*")] == [path.name for path in one.glob("checkpoints/*")]


def reference(run: Path) -> dict[bytes, bytes]:
    """Return what the cache next to a run holds."""
    path = run.parent.parent / "cache" / "reference.db"
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT pack, logps FROM logps"))


@pytest.mark.slow
def test_three_processes_draw_the_dropout_that_one_draws_where_packs_are_cut_alike(
    commands: Begin, one_process: OneProcess, tiny_models: Callable[[str], Path], pairs_file: Path
) -> None:
    row_by_row = ("dpo.batch_size=5", "dpo.n_epochs=3", "backend.runtime.tokens_at_once=1")
    line = arguments(tiny_models("gpt2"), pairs_file, *row_by_row)
    close(one_process(tuple(line)), commands("parts", 3, *line, SHARD).done())


@pytest.mark.slow
def test_only_the_first_process_writes_and_speaks(
    commands: Begin, tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    line = [*arguments(tiny_model, pairs_file, *UNEVEN), "tracking=mlflow"]
    first = commands("both", 2, *line)
    run = first.done()
    assert first.end().count("status  finished") == 1
    with closing(sqlite3.connect(tmp_path / "both" / "mlflow.db")) as connection:
        assert connection.execute("SELECT name, status FROM runs").fetchall() == [(run.name, "FINISHED")]
    events = [record.event for record in read(run / "journal.jsonl")]
    assert sum(isinstance(event, Started) for event in events) == 1
    done = [event.step for event in events if isinstance(event, StepDone)]
    assert done == ["prepare", "train", "save", "evaluate", "sample"]
    assert len(list((tmp_path / "both" / "outputs").rglob("run.txt"))) == 1

    before = (run / "journal.jsonl").read_bytes()
    second = commands("both", 2, *line)
    second.done()
    assert second.end().count("finished before") == 1
    assert (run / "journal.jsonl").read_bytes() == before
    third = commands("both", 2, *line, "again=true")
    assert third.end().count("status  finished") == 1
    assert third.codes == [0, 0]
    assert len(list((tmp_path / "both" / "runs").glob("*.before-*"))) == 1


STRIKE = """
import os, select, signal, sys
from runner.__main__ import main
from runner.record import journal
from runner.record.events import Metrics

rank, at, number, victim = sys.argv.pop(1).split(",")
kind = journal.MemoryJournal if os.environ["RANK"] != "0" else journal.Journal
add = kind.add

def strike(self, event):
    record = add(self, event)
    if os.environ["RANK"] == rank and isinstance(event, Metrics) and event.step == int(at):
        kind.add = add
        come, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        os.kill(os.getppid() if victim == "launcher" else os.getpid(), int(number))
        assert select.select([come], [], [], 60)[0], "waited 60 s for the signal"
        signal.set_wakeup_fd(-1)
    return record

kind.add = strike
main()
"""
"""Once a rank has noted a step, it sends a signal to itself or to what has launched it, and waits until it comes."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "count", "launcher"), [(1, 2, False), (0, 1, True)], ids=["another", "first, by torchrun"]
)
def test_a_killed_process_ends_the_others_and_the_same_command_resumes(
    victim: int, count: int, launcher: bool, commands: Begin, one_process: OneProcess, tiny_model: Path,
    pairs_file: Path,
) -> None:  # fmt: skip
    line = arguments(tiny_model, pairs_file, *UNEVEN)
    order = f"{victim},5,{int(signal.SIGKILL)},itself"
    killed = commands("killed", 2, order, *line, script=STRIKE, launcher=launcher)
    said = killed.end()
    assert killed.codes[0] == 1
    assert said.count("torchrun: one of the 2 processes was lost") == (2 if victim else 1), said  # status, and error
    run = the_run(killed.folder)
    last = read(run / "journal.jsonl")[-1].event
    assert isinstance(last, Failed if victim else Metrics)
    commands("killed", count, *line).done()
    close(one_process(tuple(line)), run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "victim"),
    [
        pytest.param(signal.SIGTERM, "itself", id="SIGTERM"),
        # The same handler; that torchrun hands signals on, and what it does with the ranks, shows the kill above.
        pytest.param(signal.SIGINT, "launcher", id="SIGINT, torchrun", marks=pytest.mark.exhaustive),
    ],
)
def test_a_signal_to_one_process_or_to_torchrun_stops_all_at_one_step_with_a_checkpoint(
    number: int, victim: str, commands: Begin, one_process: OneProcess, tiny_model: Path, pairs_file: Path
) -> None:
    line = arguments(tiny_model, pairs_file, *UNEVEN, SHARD)
    order = f"1,5,{int(number)},{victim}"
    command = commands("stopped", 2, order, *line, script=STRIKE, launcher=victim == "launcher")
    said = command.end()
    assert said.count("give the same command again to continue") == 1, said
    run = the_run(command.folder)
    records = read(run / "journal.jsonl")
    assert isinstance(records[-1].event, Stopped)
    step = max(record.event.step for record in records if isinstance(record.event, Metrics))
    assert 5 <= step < 9
    assert (run / "checkpoints" / f"step-{step:08d}").exists()
    commands("stopped", 1, *line).done()
    close(one_process(tuple(arguments(tiny_model, pairs_file, *UNEVEN))), run)


@pytest.mark.slow
def test_what_several_processes_cannot_do_is_refused_by_one_of_them(
    commands: Begin, tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    line = arguments(tiny_model, pairs_file)
    sweep = commands("sweep", 2, "-m", *line, "seed=1,2").end()
    assert "torchrun: runs one request at a time" in sweep
    wrong = commands("wrong", 2, *line, "dpo.beta=-1").end()
    assert wrong.count("dpo.beta: got") == 1, wrong
    assert not (tmp_path / "wrong" / "runs").exists()


FAIL_IN_THE_SECOND = """
import os
from runner.__main__ import main
from runner.backends.local.training.learner import Learner
from runner.errors import RunnerError

def fail(*_):
    raise RunnerError("the second process has run out of luck.")

if os.environ["RANK"] == "1":
    Learner.descend = fail
main()
"""


@pytest.mark.slow
def test_an_error_of_another_process_is_printed_by_it_and_journaled(
    commands: Begin, tiny_model: Path, pairs_file: Path
) -> None:
    command = commands("failed", 2, *arguments(tiny_model, pairs_file), script=FAIL_IN_THE_SECOND)
    said = command.end()
    assert command.codes == [1, 1]
    last = read(the_run(command.folder) / "journal.jsonl")[-1].event
    assert last == Failed("the second process has run out of luck.")
    assert said.count("has run out of luck") == 2, said  # status, and error
