"""What tests of remote engines share: a loop that trains a model at an emulator, and the same on this machine."""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from runner.remote.engine import opening
from runner.remote.engine.doubt import InDoubt
from runner.remote.engine.driver import Driver
from runner.remote.engine.ledger import Ledger, Line, start_of
from runner.remote.engine.remote_engine import RemoteEngine, datums
from runner.remote.engine.service import Service, Start
from runner.remote.target import Limits
from runner.training.engine import Abilities
from runner.training.loop import train
from tests.emulator.primitives.service import Primitives
from tests.training.driving import Listed, reported
from tests.training.test_by_primitives import RECIPE, ROWS, examples

BASE = "tiny/llama"
SEED = 3
PATIENCE = 20.0


class Wire(ABC):
    """A kind of service: its emulator, and how the driver reaches it."""

    clips: bool
    """Whether it scales long gradients down."""
    lora: ClassVar[Mapping[str, object]]
    """LoRA's settings, which mean the same model everywhere."""
    saves: str
    """The emulator's name for the request that saves a state."""
    opens: str
    """The emulator's name for the request that opens a session."""

    @abstractmethod
    def emulator(self, models: Mapping[str, Path]) -> Primitives:
        """Return the emulator, which is to be entered."""

    @abstractmethod
    def service(self, url: str) -> Service:
        """Return the service as the driver asks it."""

    @property
    def abilities(self) -> Abilities:
        """What the engine states of itself."""
        return Abilities(lost_answer="probe", exact_resume=False, clips=self.clips, likeliest=False, lacks={})

    @property
    def killed(self) -> Any:
        """Three optimizer steps of DPO in two passes each, with a checkpoint after the second and the third."""
        return self.fitting(replace(RECIPE, num_steps=3, checkpoint_every=2))

    def fitting(self, recipe: Any) -> Any:
        """Return a recipe without what the service does not have."""
        return recipe if self.clips else replace(recipe, max_grad_norm=None)


class TinkerWire(Wire):
    """The Tinker API."""

    clips = True
    lora: ClassVar[Mapping[str, object]] = {"rank": 4, "train_attn": True, "train_mlp": True, "train_unembed": False}
    saves, opens = "POST save_weights", "POST create_session"

    def emulator(self, models: Mapping[str, Path]) -> Primitives:
        """Return the emulator."""
        from tests.emulator.tinker import TinkerEmulator

        return TinkerEmulator(models)

    def service(self, url: str) -> Service:
        """Return the service."""
        from runner.backends.tinker.service import Tinker
        from tests.emulator.tinker.emulator import KEY

        return Tinker(url, KEY, PATIENCE)


class SessionsWire(Wire):
    """Foundry's fine-tuning sessions."""

    clips = False
    lora: ClassVar[Mapping[str, object]] = {"rank": 4, "alpha": 32.0}
    saves, opens = "POST checkpoint", "POST sessions"

    def emulator(self, models: Mapping[str, Path]) -> Primitives:
        """Return the emulator."""
        from tests.emulator.sessions import SessionsEmulator

        return SessionsEmulator(models)

    def service(self, url: str) -> Service:
        """Return the service, which lets in whoever has one of its tokens."""
        import httpx2

        from runner.backends.foundry_sessions.service import FoundrySessions
        from tests.emulator import identity
        from tests.emulator.routes import PROJECT

        where, asked = f"{url}/msi/token", {"resource": "https://ai.azure.com"}
        answer = httpx2.get(where, params=asked, headers={"X-IDENTITY-HEADER": identity.HEADER})
        token = str(answer.json()["access_token"])
        return FoundrySessions(url + PROJECT, lambda: token, PATIENCE, "GlobalStandard")


WIRES: Mapping[str, Wire] = {"tinker": TinkerWire(), "sessions": SessionsWire()}


@dataclass(frozen=True)
class Rehearsal:
    """An emulator that is up, and the kind of service that it is."""

    wire: str
    emulator: Primitives

    @property
    def kind(self) -> Wire:
        """The kind of service."""
        return WIRES[self.wire]

    def driver(self, folder: Path) -> Driver:
        """Return the driver of a folder's ledger."""
        return driver(self.wire, self.emulator.url, folder)


def driver(wire: str, url: str, folder: Path) -> Driver:
    """Return the driver of a folder's ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    return Driver(WIRES[wire].service(url), Ledger(folder / "ledger.jsonl"), pause=0.01)


def attach(wire: str, found: Driver, rows: Any) -> None:
    """Take up the ledger's session, or open one at its last checkpoint."""
    if opening.attached(found):
        found.rewind()
        return
    saved, checkpoint = start_of(found.ledger), found.ledger.checkpoint
    start = Start(BASE, WIRES[wire].lora, SEED, checkpoint.path if checkpoint else "")
    example = rows[0].tokens
    probe = list(datums([example], np.zeros(sum(map(sum, example.learned)))))
    opening.open_session(found, start, saved.step, probe, {"runner_plan_id": "rehearsal"})


def engine(wire: str, found: Driver) -> RemoteEngine:
    """Return the engine over a driver."""
    return RemoteEngine(found, Limits(WIRES[wire].abilities, base_model=BASE))


def trained(wire: str, found: Driver, recipe: Any, rows: Any, held_out: Any) -> tuple[list[Any], int]:
    """Train to the end, from wherever the ledger is; return the events and the step."""
    driven = engine(wire, found)
    attach(wire, found, rows)
    while True:
        try:
            events, step = reported(train(driven, recipe, rows, held_out))
            return events, step
        except InDoubt:
            opening.close(found, "errored")
            attach(wire, found, rows)


def carry_out(wire: str, url: str, folder: Path, kill_after: int = 0) -> None:
    """Train what is left of a folder's run and close its session; kill this process after so many records."""
    found, recipe = driver(wire, url, folder), WIRES[wire].killed
    if kill_after:
        _kill_after(found.ledger, kill_after)
    trained(wire, found, recipe, examples(recipe, ROWS[:6]), Listed())
    opening.close(found, "success")
    found.service.disconnect()


def _kill_after(ledger: Ledger, records: int) -> None:
    add: Callable[[Line], None] = ledger.add
    left = records

    def counted(line: Line) -> None:
        nonlocal left
        add(line)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    ledger.add = counted  # type: ignore[method-assign]


def final(service: Primitives, step: int) -> Any:
    """Return the weights of the checkpoint after so many steps that was made last, and the optimizer steps in it."""
    paths = [path for path in service.checkpoints if path.endswith(f"/weights/step-{step:08d}")]
    return service.checkpoints[paths[-1]].weights
