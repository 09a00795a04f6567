"""kill -9 after any record, answers lost before and after the work, with deduplication and without: one result.

Whatever happens, the weights are those of an undisturbed run, the optimizer steps behind them are those of the plan,
no more is trained twice than what lies between two checkpoints, and no session is left running.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import torch

pytest.importorskip("tinker")

from tests import warm
from tests.emulator.faults import Fault
from tests.emulator.tinker import TinkerEmulator
from tests.remote import driven

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
url = sys.argv[1]
gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    folder, kill_after = json.loads(line)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        driven.carry_out(url, Path(folder), kill_after)
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
def drivers_of(service: TinkerEmulator) -> Iterator[Drivers]:
    line = [sys.executable, "-c", FORK_AND_TRAIN, service.url]
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    with warm.Popen(line, cwd=warm.ROOT, env=environment, stdin=PIPE, stdout=PIPE, text=True) as forking:
        yield Drivers(forking)
        forking.kill()


@pytest.fixture(scope="module")
def service(tiny_model: Path) -> Iterator[TinkerEmulator]:
    with TinkerEmulator({driven.BASE: tiny_model}) as found:
        yield found
        assert found.violations == []


@pytest.fixture(scope="module")
def undisturbed(service: TinkerEmulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    service.dedupes = True
    driven.carry_out(service.url, tmp_path_factory.mktemp("undisturbed"))
    return dict(driven.final(service, STEPS).state.weights)


@dataclass(frozen=True)
class Outcome:
    """What the service has done in all for one run."""

    gradients: int
    steps: int


def demand_one_result(service: TinkerEmulator, undisturbed: dict[str, torch.Tensor], begun: int) -> Outcome:
    """Require the undisturbed weights after the planned steps, and that no session is left."""
    weights = driven.final(service, STEPS)
    assert weights.steps == STEPS
    for name, tensor in weights.state.weights.items():
        assert torch.equal(tensor, undisturbed[name]), name
    assert service.live == []
    models = list(service.models)[begun:]
    gradients, steps = (sum(service.done[name, what] for name in models) for what in ("forward_backward", "optim_step"))
    return Outcome(gradients, steps)


LOST = {"no answer lost": None, "lost before": "reset_before", "lost after": "reset_after"}


def every_record(dedupes: bool, lost: str) -> Any:
    """Return a case that `make test` leaves out: of the same kind, and of each record a kill."""
    return pytest.param(dedupes, lost, 1, marks=pytest.mark.exhaustive)


@pytest.mark.parametrize(
    ("dedupes", "lost", "every"),
    [
        (True, "no answer lost", 7),
        (False, "lost after", 9),
        *(every_record(dedupes, lost) for dedupes in (True, False) for lost in LOST),
    ],
)
def test_after_a_kill_behind_any_record_the_same_command_ends_in_the_same_weights(
    dedupes: bool, lost: str, every: int, service: TinkerEmulator, undisturbed: Any, tmp_path: Path
) -> None:
    service.dedupes = dedupes
    with drivers_of(service) as drivers:
        for number in count(1, every):
            begun, folder = len(service.models), tmp_path / str(number)
            code = drivers.carry_out(folder, kill_after=number)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            if LOST[lost]:
                service.inject(Fault("POST optim_step", str(LOST[lost])))
                service.inject(Fault("POST forward_backward", str(LOST[lost]), skip=2))
            assert drivers.carry_out(folder) == 0
            service.disarm()
            found = demand_one_result(service, undisturbed, begun)
            if dedupes:  # the same request is answered as the first time: nothing at all is paid twice
                assert (found.gradients, found.steps) == (STEPS, STEPS)
            assert found.gradients <= STEPS + CHECKPOINT_EVERY
            assert found.steps <= STEPS + CHECKPOINT_EVERY
    assert number > 30


USUAL = {("POST forward_backward", "reset_after", False), ("POST optim_step", "reset_after", False),
         ("POST optim_step", "reset_before", False), ("POST optim_step", "reset_after", True),
         ("POST save_weights", "reset_after", True)}  # fmt: skip


@pytest.mark.parametrize(
    ("route", "way", "dedupes"),
    [
        pytest.param(*case, marks=[] if case in USUAL else pytest.mark.exhaustive)
        for case in product(
            ["POST forward_backward", "POST optim_step", "POST save_weights"],
            ["reset_before", "reset_after"],
            [True, False],
        )
    ],
)
def test_an_answer_that_is_lost_costs_at_most_what_lies_behind_the_last_checkpoint(
    route: str, way: str, dedupes: bool, service: TinkerEmulator, undisturbed: Any, tmp_path: Path
) -> None:
    service.dedupes = dedupes
    for skip in count():
        begun = len(service.models)
        service.inject(Fault(route, way, skip=skip))
        driven.carry_out(service.url, tmp_path / str(skip))
        found = demand_one_result(service, undisturbed, begun)
        if service.disarm():
            break
        assert found.gradients <= STEPS + CHECKPOINT_EVERY
        # A probe tells an optimizer step that was taken from one that was not.
        if dedupes or route != "POST forward_backward":
            assert (found.gradients, found.steps) == (STEPS, STEPS)
    assert skip == {"POST forward_backward": 9, "POST optim_step": 3, "POST save_weights": 2}[route]
