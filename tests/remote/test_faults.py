"""What else may go wrong at a service: late requests, results that are gone, no capacity, an engine that has died.

However it comes, the weights are those of an undisturbed run, the steps behind them are those of the plan, and no
session is left running.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("tinker")
pytest.importorskip("azure.core")

from runner.remote.engine.ledger import Opened, read
from tests.emulator.faults import Fault
from tests.remote import driven
from tests.remote.driven import WIRES

pytestmark = pytest.mark.slow

STEPS = 3
BUSY = {"detail": {"reason": "engine_busy", "message": "No engine capacity"}}
DEAD = {"detail": {"reason": "engine_dead", "error_code": "engine_dead", "message": "The engine has died"}}


@pytest.fixture(scope="module")
def rehearsals(tiny_model: Path) -> Iterator[dict[str, driven.Rehearsal]]:
    with ExitStack() as up:
        found = {name: up.enter_context(wire.emulator({driven.BASE: tiny_model})) for name, wire in WIRES.items()}
        yield {name: driven.Rehearsal(name, emulator) for name, emulator in found.items()}
        assert [emulator.violations for emulator in found.values()] == [[], []]


@pytest.fixture(scope="module")
def undisturbed(rehearsals: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    for name, service in rehearsals.items():
        driven.carry_out(name, service.emulator.url, tmp_path_factory.mktemp("undisturbed"))
    return {name: driven.final(each.emulator, STEPS).state.weights for name, each in rehearsals.items()}


def carried_out(service: driven.Rehearsal, undisturbed: Any, folder: Path, *faults: Fault) -> int:
    """Train under some faults, require the undisturbed result, and return how many sessions it took."""
    emulator = service.emulator
    for fault in faults:
        emulator.inject(fault)
    driven.carry_out(service.wire, emulator.url, folder)
    assert not faults or not emulator.disarm(), "every fault was to strike"
    weights = driven.final(emulator, STEPS)
    assert weights.steps == STEPS
    for name, tensor in weights.state.weights.items():
        assert torch.equal(tensor, undisturbed[service.wire][name]), name
    assert emulator.live == []
    return sum(isinstance(line, Opened) for line in read(folder / "ledger.jsonl"))


@pytest.mark.parametrize(
    ("wire", "before", "step", "sessions"),
    [
        # Under its number it is the same request, whenever it comes.
        ("tinker", "POST optim_step", 1, 1),
        # Before the probe, which shows it.
        ("sessions", "POST forward", 1, 1),
        # Before the step is sent again: its count is one too many.
        ("sessions", "POST optim_step", 1, 2),
        # After the step that was sent again, and before a checkpoint, which does not count.
        ("sessions", "POST checkpoint", 1, 2),
        # Between two passes of the next step: its count is one too many.
        ("sessions", "POST forward_backward", 0, 2),
    ],
)
def test_a_step_that_arrives_late_is_not_in_the_result(
    wire: str, before: str, step: int, sessions: int, rehearsals: Any, undisturbed: Any, tmp_path: Path
) -> None:
    late = Fault("POST optim_step", "late", before=before, skip=step)
    assert carried_out(rehearsals[wire], undisturbed, tmp_path, late) == sessions


GONE: dict[str, Any] = {"on": "POST retrieve_future", "kind": "status", "status": 410}
FAILED: dict[str, Any] = {"on": "GET request", "kind": "failed"}
APPLIED = {**FAILED, "error_code": "operation_completed_result_unavailable"}
AGAIN = {**FAILED, "error_code": "request_orphaned", "should_retry": True, "retry_after_sec": 0.01}


@pytest.mark.parametrize(
    ("wire", "fault", "first", "every"),
    [
        ("tinker", GONE, 3, 4),
        ("sessions", APPLIED, 3, 4),
        ("sessions", AGAIN, 4, 5),
        ("sessions", {**AGAIN, "on": "POST forward_backward", "kind": "dropped"}, 1, 9),
        ("sessions", {**AGAIN, "on": "POST optim_step", "kind": "dropped"}, 1, 9),
        pytest.param("tinker", GONE, 3, 1, marks=pytest.mark.exhaustive),
        *(pytest.param("sessions", each, 3, 1, marks=pytest.mark.exhaustive) for each in (APPLIED, AGAIN)),
    ],
)
def test_a_result_that_is_gone_is_made_up_for(
    wire: str, fault: Any, first: int, every: int, rehearsals: Any, undisturbed: Any, tmp_path: Path
) -> None:
    rehearsals["tinker"].emulator.dedupes = True
    emulator = rehearsals[wire].emulator
    for skip in count(first, every):
        begun = emulator.count("optim_step")
        emulator.inject(Fault(**fault, skip=skip))
        assert carried_out(rehearsals[wire], undisturbed, tmp_path / str(skip)) <= 2
        if emulator.disarm():
            break
        if fault is APPLIED:  # the service says itself that it was carried out
            assert emulator.count("optim_step") - begun == STEPS
    assert skip > first


@pytest.mark.parametrize(
    ("wire", "faults"),
    [
        ("tinker", [Fault(f"POST create_{what}", "status", status=503) for what in ("session", "model")]),
        ("sessions", [Fault("POST sessions", "status", status=503, body=BUSY, times=2)]),
        ("sessions", [Fault("POST sessions", "status", status=503)]),
        ("sessions", [Fault("POST sessions", "reset_before")]),
        ("sessions", [Fault("POST sessions", "reset_after")]),
        ("sessions", [Fault("POST forward_backward", "status", status=503, body=BUSY), Fault("GET request", "vanish")]),
    ],
    ids=["busy tinker", "busy", "busy proxy", "lost before", "lost after", "busy engine and slow store"],
)
def test_a_service_that_is_busy_or_loses_the_answer_to_an_opening_has_one_session_in_the_end(
    wire: str, faults: list[Fault], rehearsals: Any, undisturbed: Any, tmp_path: Path
) -> None:
    emulator = rehearsals[wire].emulator
    begun = len(emulator.sessions)
    assert carried_out(rehearsals[wire], undisturbed, tmp_path, *faults) == 1
    assert len(emulator.sessions) - begun == 1


def test_an_engine_that_dies_and_a_save_that_leaves_nothing_cost_a_session_or_nothing(
    rehearsals: Any, undisturbed: Any, tmp_path: Path
) -> None:
    service = rehearsals["sessions"]
    dead = Fault("POST optim_step", "status", status=409, body=DEAD, skip=1)
    assert carried_out(service, undisturbed, tmp_path / "dead", dead) == 2
    service.emulator.unlisted = 1
    assert carried_out(service, undisturbed, tmp_path / "unlisted") == 1
