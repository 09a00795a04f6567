"""A user's folder with data in it, next to an emulated service of training primitives."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner import api
from runner.errors import RunnerError
from runner.record.events import Metrics
from runner.record.journal import read
from tests import waiting, warm
from tests.conftest import pair_row

BASE = "tiny/llama"


@dataclass(frozen=True)
class World:
    """The folder in which commands run, the service that they reach, and the model's own folder."""

    folder: Path
    service: Any
    model: Path
    backend: str
    scheme: str

    @property
    def source(self) -> str:
        """The model as `model.source` names it."""
        return f"{self.scheme}:{BASE}@path:{self.model}"

    def environment(self) -> dict[str, str]:
        """Return the variables that a command sees."""
        own = {"PYTHONWARNINGS": "ignore", "COLUMNS": "400", "RUNNER_CACHE": str(self.folder / "cache")}
        return os.environ | self.service.environment() | own | {"OMP_NUM_THREADS": "1"}

    def command(self, *line: str, typed: str = "", code: int = 0) -> str:
        """Run `python -m …` in the folder to its end and return what it printed."""
        done = warm.run([sys.executable, "-m", *line], cwd=self.folder, env=self.environment(), input=typed)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def refusal(self, *line: str) -> str:
        """Return the sentence by which a plan is refused, in this process: a command takes 0.7 s to refuse it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name, value in self.environment().items():
                patch.setenv(name, value)
            with pytest.raises(RunnerError) as refused:
                api.plan(*line[1:])
        assert refused.value.exit_code == 2
        return str(refused.value)

    def script(self, text: str) -> str:
        """Run a program in the folder and return the last line that it prints."""
        line = [sys.executable, "-c", text]
        return warm.run(line, cwd=self.folder, env=self.environment(), check=True).stdout.splitlines()[-1]

    def started(self, *line: str) -> "subprocess.Popen[str]":
        """Start `python -m …` in the folder."""
        return warm.Popen(
            [sys.executable, "-m", *line], cwd=self.folder, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def line(self, *more: str) -> list[str]:
        """Return the request that all runs here share, whatever their backend."""
        return [
            "runner", "dataset=files", "dataset.train=train.jsonl", "dataset.validation=held_out.jsonl",
            "dpo.n_epochs=2", "dpo.batch_size=4", "evaluation.samples=2", "evaluation.max_new_tokens=6",
            "backend.lora.rank=4", "backend.runtime.checkpoint_every=2", "tracking=none", *more,
        ]  # fmt: skip

    def run(self, name: str, *more: str, code: int = 0) -> Path:
        """Run at the service and return the run's folder."""
        line = self.line(f"backend={self.backend}", f"name={name}", *more)
        source = [] if any(each.startswith("model.source=") for each in more) else [f"model.source={self.source}"]
        self.command(*line, *source, code=code)
        return self.of(name)

    def begun(self, name: str, *more: str) -> "subprocess.Popen[str]":
        """Start a run and wait until it has a checkpoint at the service."""
        line = self.line(f"backend={self.backend}", f"name={name}", f"model.source={self.source}", *more)
        process = self.started(*line)
        waiting.until(lambda: self.service.checkpoints, "a checkpoint", process=process)
        return process

    def of(self, name: str) -> Path:
        """Return the folder of the run with a name."""
        (found,) = self.folder.glob(f"runs/{name}-*")
        return found


@contextmanager
def tinker_world(model: Path, folder: Path) -> Iterator[World]:
    """Lend a world whose service is Tinker."""
    pytest.importorskip("tinker")
    from tests.emulator.tinker import TinkerEmulator

    with _world(folder, TinkerEmulator({BASE: model}), model, "tinker", "tinker") as found:
        yield found


@contextmanager
def sessions_world(model: Path, folder: Path) -> Iterator[World]:
    """Lend a world whose service is Foundry's sessions, whose tokens are in none of its files afterwards."""
    pytest.importorskip("azure.identity")
    from tests.emulator.sessions import SessionsEmulator

    with _world(folder, SessionsEmulator({BASE: model}), model, "foundry_sessions", "session") as found:
        yield found
        tokens = [token.encode() for token in found.service.identity.issued]
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert [path for path in files if any(token in path.read_bytes() for token in tokens)] == []


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Return the exit code of a process that is about to end, and what it has printed."""
    output, errors = process.communicate(timeout=waiting.SECONDS)
    return process.returncode, output + errors


def write_pairs(folder: Path) -> None:
    """Write the pairs that all runs here learn from."""
    for name, numbers in (("train", range(12)), ("held_out", range(12, 18))):
        rows = "".join(json.dumps(pair_row(number)) + "\n" for number in numbers)
        (folder / f"{name}.jsonl").write_text(rows, "utf-8")


def measured(run: Path) -> dict[tuple[int, str], float]:
    """Return every value of a run's journal by step and name, but for the speed."""
    return {
        (each.event.step, name): value
        for each in read(run / "journal.jsonl")
        if isinstance(each.event, Metrics)
        for name, value in each.event.values.items()
        if not name.startswith("system/")
    }


def steps_behind(world: World) -> int:
    """Return the optimizer steps behind the result that was made last."""
    return [each.weights.steps for path, each in world.service.checkpoints.items() if "/weights/result" in path][-1]


def demand_stop_before_max_price(world: World) -> None:
    """Require a run to stop at half of its estimate, to stay there, and to end once twice the estimate is allowed."""
    prices = world.folder / "prices.yaml"
    prices.write_text(f"date: 2026-11\nsource: us\nmodels:\n  {BASE}: {{train: 500, prefill: 100, sample: 300}}\n")
    line = world.line(f"backend={world.backend}", f"model.source={world.source}", f"backend.prices={prices}")
    line += ["name=one", "evaluation.samples=0"]
    estimate = float(re.findall(r"about \$([\d.]+), by how", world.command(*line, "mode=plan"))[0])
    said = world.command(*line, f"max_price={estimate / 2}", code=1)
    found = re.search(r"about \$([\d.]+), by how .*stopped after (\d) of 6 steps", said)
    assert found, said
    assert 0.25 * estimate < float(found[1]) <= estimate / 2
    assert 1 <= int(found[2]) < 6
    assert world.service.live == []
    world.command(*line, f"max_price={estimate / 2}", code=1)
    assert world.service.count("optim_step") == int(found[2])
    world.command(*line, f"max_price={2 * estimate}")
    assert steps_behind(world) == 6
    assert world.service.count("optim_step") == 6


@contextmanager
def _world(folder: Path, emulator: Any, model: Path, backend: str, scheme: str) -> Iterator[World]:
    """Lend a world with rows in its folder, in which the service is obeyed and no session is left."""
    write_pairs(folder)
    with emulator as service:
        yield World(folder, service, model, backend, scheme)
        assert service.violations == []
        assert service.live == []
