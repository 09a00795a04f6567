"""What tests of remote engines share: a loop that trains a model at the emulator, and the same on this machine."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from runner.backends.tinker.service import Tinker
from runner.remote.engine import opening
from runner.remote.engine.doubt import InDoubt
from runner.remote.engine.driver import Driver
from runner.remote.engine.ledger import Ledger, Line, start_of
from runner.remote.engine.remote_engine import Limits, RemoteEngine, datums
from runner.remote.engine.service import Start
from runner.training.engine import Abilities
from runner.training.loop import train
from tests.emulator.tinker import TinkerEmulator
from tests.emulator.tinker.emulator import KEY
from tests.training.driving import Listed, told
from tests.training.test_by_primitives import RECIPE, ROWS, examples

BASE = "tiny/llama"
ABILITIES = Abilities(lost_answer="repeat", exact_resume=False, clips=True, likeliest=False, lacks={})
LORA = {"rank": 4, "train_attn": True, "train_mlp": True, "train_unembed": False}
SEED = 3
KILLED = replace(RECIPE, num_steps=3, checkpoint_every=2)
"""Three optimizer steps of DPO in two passes each, with a checkpoint after the second and the third."""


def driver(url: str, folder: Path) -> Driver:
    """Return the driver of a folder's ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    service = Tinker(url, KEY, patience=20.0)
    return Driver(service, Ledger(folder / "ledger.jsonl"), pause=0.01)


def attach(found: Driver, rows: Any) -> None:
    """Take up the ledger's session, or open one at its last checkpoint."""
    if opening.attached(found):
        found.rewind()
        return
    saved, checkpoint = start_of(found.ledger), found.ledger.checkpoint
    start = Start(BASE, LORA, SEED, checkpoint.path if checkpoint else "")
    example = rows[0].tokens
    probe = list(datums([example], np.zeros(sum(map(sum, example.learned)))))
    opening.open_session(found, start, saved.step, probe, {"runner_plan_id": "rehearsal"})


def trained(found: Driver, recipe: Any, rows: Any, held_out: Any) -> tuple[list[Any], int]:
    """Train to the end, from wherever the ledger is; return the events and the step."""
    engine = RemoteEngine(found, Limits(ABILITIES, base_model=BASE))
    attach(found, rows)
    while True:
        try:
            events, step = told(train(engine, recipe, rows, held_out))
            return events, step
        except InDoubt:
            opening.close(found, "errored")
            attach(found, rows)


def carry_out(url: str, folder: Path, kill_after: int = 0) -> None:
    """Train what is left of a folder's run and close its session; kill this process after so many records."""
    found = driver(url, folder)
    if kill_after:
        _kill_after(found.ledger, kill_after)
    trained(found, KILLED, examples(KILLED, ROWS[:6]), Listed())
    opening.close(found, "success")
    found.service.disconnect()


def _kill_after(ledger: Ledger, records: int) -> None:
    add, left = ledger.add, records

    def counted(line: Line) -> None:
        nonlocal left
        add(line)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    ledger.add = counted  # type: ignore[method-assign]


def final(service: TinkerEmulator, step: int) -> Any:
    """Return the weights of the checkpoint after so many steps that was made last, and the optimizer steps in it."""
    paths = [path for path in service.checkpoints if path.endswith(f"/weights/step-{step:08d}")]
    return service.checkpoints[paths[-1]].weights
