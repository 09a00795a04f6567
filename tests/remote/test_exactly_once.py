"""kill -9 after any record, answers lost before and after the work, whether a service deduplicates or not: one result.

Whatever happens, the weights are those of an undisturbed run, the optimizer steps behind them are those of the plan,
no more is trained twice than what lies between two checkpoints, and no session is left running.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import torch

pytest.importorskip("tinker")
pytest.importorskip("azure.core")

from tests import warm
from tests.emulator.faults import Fault
from tests.remote import driven
from tests.remote.driven import WIRES

pytestmark = pytest.mark.slow

SECONDS = 60
STEPS, CHECKPOINT_EVERY = 3, 2

FORK_AND_TRAIN = """
import gc, json, os, signal, sys
from pathlib import Path
import torch, httpx2
from runner.backends.tinker import wire
from tests.remote import driven
wire.messages()
torch.set_num_threads(1)
kind, url = sys.argv[1:]
gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    folder, kill_after = json.loads(line)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        driven.carry_out(kind, url, Path(folder), kill_after)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Drivers:
    """Drivers in processes of their own, forked from one that has imported everything."""

    def __init__(self, forking: "warm.Popen") -> None:
        self._orders, self._answers = forking.stdin, forking.stdout
        assert self._next_line() == "ready"

    def carry_out(self, folder: Path, kill_after: int = 0) -> int:
        """Train what is left of a folder's run; return the exit code. It kills itself after so many records."""
        assert self._orders
        self._orders.write(json.dumps([str(folder), kill_after]) + "\n")
        self._orders.flush()
        return int(self._next_line())

    def _next_line(self) -> str:
        assert self._answers
        line: str = self._answers.readline()
        assert line, "the process that forks has ended; what it wrote on standard error says why"
        return line.strip()


@contextmanager
def drivers_of(service: driven.Rehearsal) -> Iterator[Drivers]:
    line = [sys.executable, "-c", FORK_AND_TRAIN, service.wire, service.emulator.url]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    with warm.Popen(line, cwd=warm.ROOT, env=environment, stdin=PIPE, stdout=PIPE, text=True) as forking:
        yield Drivers(forking)
        forking.kill()


Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def rehearsals(tiny_model: Path) -> Iterator[dict[str, driven.Rehearsal]]:
    with ExitStack() as up:
        found = {name: up.enter_context(wire.emulator({driven.BASE: tiny_model})) for name, wire in WIRES.items()}
        yield {name: driven.Rehearsal(name, emulator) for name, emulator in found.items()}
        assert [emulator.violations for emulator in found.values()] == [[], []]


@pytest.fixture(scope="module")
def undisturbed(rehearsals: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    for name, service in rehearsals.items():
        driven.carry_out(name, service.emulator.url, tmp_path_factory.mktemp("undisturbed"))
    return {name: dict(driven.final(each.emulator, STEPS).state.weights) for name, each in rehearsals.items()}


@dataclass(frozen=True)
class Outcome:
    """What the service has done in all for one run."""

    gradients: int
    steps: int


AS_PLANNED = Outcome(STEPS, STEPS)


def demand_one_result(service: driven.Rehearsal, undisturbed: dict[str, Weights], begun: int) -> Outcome:
    """Require the undisturbed weights after the planned steps, that no session is left, and little paid twice."""
    emulator = service.emulator
    weights = driven.final(emulator, STEPS)
    assert weights.steps == STEPS
    for name, tensor in weights.state.weights.items():
        assert torch.equal(tensor, undisturbed[service.wire][name]), name
    assert emulator.live == []
    models = list(emulator.models)[begun:]
    gradients, steps = (
        sum(emulator.done[name, what] for name in models) for what in ("forward_backward", "optim_step")
    )  # fmt: skip
    assert gradients <= STEPS + CHECKPOINT_EVERY
    assert steps <= STEPS + CHECKPOINT_EVERY + 1  # and one that a proxy may have held back
    return Outcome(gradients, steps)


KINDS = [("tinker", True), ("tinker", False), ("sessions", False)]
"""Each kind of service, with deduplication and without."""
LOST = {"no answer lost": None, "lost before": "reset_before", "lost after": "reset_after"}


def every_record(kind: tuple[str, bool], lost: str) -> Any:
    """Return a case that `make test` leaves out: of the same kind, and of each record a kill."""
    return pytest.param(*kind, lost, 1, marks=pytest.mark.exhaustive)


@pytest.mark.parametrize(
    ("wire", "dedupes", "lost", "every"),
    [
        ("tinker", True, "no answer lost", 7),
        ("tinker", False, "lost after", 9),
        ("sessions", False, "lost after", 11),
        *(every_record(kind, lost) for kind in KINDS for lost in LOST),
    ],
)
def test_after_a_kill_behind_any_record_the_same_command_ends_in_the_same_weights(
    wire: str, dedupes: bool, lost: str, every: int, rehearsals: Any, undisturbed: Any, tmp_path: Path
) -> None:
    service, emulator = rehearsals[wire], rehearsals[wire].emulator
    emulator.dedupes = dedupes
    with drivers_of(service) as drivers:
        for number in count(1, every):
            begun, folder = len(emulator.models), tmp_path / str(number)
            code = drivers.carry_out(folder, kill_after=number)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            if LOST[lost]:
                emulator.inject(Fault("POST optim_step", str(LOST[lost])))
                emulator.inject(Fault("POST forward_backward", str(LOST[lost]), skip=2))
            assert drivers.carry_out(folder) == 0
            emulator.disarm()
            found = demand_one_result(service, undisturbed, begun)
            if dedupes:  # the same request is answered as the first time: nothing at all is paid twice
                assert found == AS_PLANNED
    assert number > 30


ROUTES = ("forward_backward", "optim_step", "save")
# Each operation of each kind of service; a step that was not taken, which the same probe shows of both, of one.
USUAL = {
    ("tinker", True, "optim_step", "reset_after"), ("tinker", True, "save", "reset_after"),
    ("tinker", False, "forward_backward", "reset_after"), ("tinker", False, "optim_step", "reset_after"),
    ("sessions", False, "forward_backward", "reset_after"), ("sessions", False, "optim_step", "reset_after"),
    ("sessions", False, "optim_step", "reset_before"), ("sessions", False, "save", "reset_after"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("wire", "dedupes", "operation", "way"),
    [
        pytest.param(*case, marks=[] if case in USUAL else pytest.mark.exhaustive)
        for kind in KINDS
        for case in product([kind[0]], [kind[1]], ROUTES, ["reset_before", "reset_after"])
    ],
)
def test_an_answer_that_is_lost_costs_at_most_what_lies_behind_the_last_checkpoint(
    wire: str, dedupes: bool, operation: str, way: str, rehearsals: Any, undisturbed: Any, tmp_path: Path
) -> None:
    service, emulator = rehearsals[wire], rehearsals[wire].emulator
    emulator.dedupes = dedupes
    route = service.kind.saves if operation == "save" else f"POST {operation}"
    for skip in count():
        begun = len(emulator.models)
        emulator.inject(Fault(route, way, skip=skip))
        driven.carry_out(wire, emulator.url, tmp_path / str(skip))
        found = demand_one_result(service, undisturbed, begun)
        if emulator.disarm():
            break
        # A probe reports an optimizer step that was taken from one that was not.
        if dedupes or operation != "forward_backward":
            assert found == AS_PLANNED
    # Tinker's forward passes come by the same route, those on opening included.
    passes = 9 if wire == "tinker" else 3
    assert skip == {"forward_backward": passes, "optim_step": 3, "save": 2}[operation]
