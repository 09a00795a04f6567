"""A hosted run in this process against the emulator: request, plan, execution, and how it ended."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from runner import planning
from runner.errors import RunnerError
from runner.execution import execute
from runner.plan import Run
from runner.record import events
from runner.record.events import Note
from runner.record.journal import read
from runner.request import check, hydra_config
from tests.conftest import pair_row
from tests.emulator import Emulator

Make = Callable[..., Emulator]
Metrics = set[tuple[int, str, float]]

DEPLOYED = "backend.deploy=delete_after_eval"
REINFORCED = (
    "method=rft", "model.source=hosted:o4-mini", "rft.grader=string_check", "rft.n_epochs=2", "rft.batch_size=4",
)  # fmt: skip
"""A reinforcement job over the same pairs, whose chosen answers are the references of the grader."""
IMPATIENT = "backend.polling.patience=0.3"
"""For faults that outlast patience; any other test would take a busy machine's late answer for one."""
ROWS, HELD_OUT = 24, 10


@dataclass(frozen=True)
class Ended:
    """How an execution ended: its exit code, what was reported, the run's folder."""

    code: int
    message: str
    folder: Path

    @property
    def metrics(self) -> Metrics:
        """Every value the journal holds, by step and name."""
        records = read(self.folder / "journal.jsonl")
        found = [
            (each.event.step, name, value)
            for each in records
            if isinstance(each.event, events.Metrics)
            for name, value in each.event.values.items()
        ]
        assert len(found) == len(set(found)), "a metric was noted twice"
        return set(found)

    @property
    def notes(self) -> str:
        """All notes."""
        return "\n".join(e.event.text for e in read(self.folder / "journal.jsonl") if isinstance(e.event, Note))

    @property
    def samples(self) -> list[dict[str, str]]:
        """The answers compared."""
        found: list[dict[str, str]] = json.loads((self.folder / "samples.json").read_bytes())
        return found


def kind(event: events.Event) -> str:
    """Return what kind of record an event makes: its type, and whether it is of a file, a job or a deployment."""
    return " ".join([type(event).__name__, *getattr(event, "what", "").split()[:1]])


def openapi() -> Path | None:
    """Return the OpenAPI file of the real service, where the folder with real data is at hand."""
    folder = os.environ.get("RUNNER_TEST_DATA")
    return Path(folder, "foundry", "openai_finetuning_files.openapi.json") if folder else None


def write_data(folder: Path) -> None:
    """Write training and held-out pairs."""
    for name, numbers in (("train", range(ROWS)), ("held_out", range(ROWS, ROWS + HELD_OUT))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(pair_row(n)) + "\n" for n in numbers), "utf-8")


def planned(data: Path, runs: Path, *overrides: str, **top: Any) -> Run:
    """Plan a hosted run over the data of a folder; `top` are keys that are in no section."""
    composed: Any = OmegaConf.to_container(_composed(*overrides), resolve=True)
    composed["dataset"] |= {"train": f"{data}/train.jsonl", "validation": f"{data}/held_out.jsonl"}
    return planning.make(check.request(composed | {"runs_folder": str(runs)} | top)).run


@cache  # half of the processor time of a run, and the same for hundreds of them
def _composed(*overrides: str) -> Any:
    """Return what Hydra composes for a hosted run, its folders left open."""
    GlobalHydra.instance().clear()
    hydra_config.register()
    method = [] if any(each.startswith("method=") for each in overrides) else ["dpo.n_epochs=2", "dpo.batch_size=4"]
    line = [
        "backend=foundry", "dataset=files", "dataset.train=later", *method,
        "evaluation.samples=2", "evaluation.max_new_tokens=16", "tracking=none", "backend.polling.every=0.02",
        "backend.polling.requests_per_second=1000", "backend.polling.patience=60", *overrides,
    ]  # fmt: skip
    with initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"):
        return compose("config", line)


def carry_out(run: Run, listener: execute.Listener = lambda record: None) -> Ended:
    """Execute a run, and again what is left of it where it was begun before."""
    try:
        with execute.alone(run.folder):
            execute.execute(run, listener)
    except RunnerError as error:
        return Ended(error.exit_code, str(error), run.folder)
    return Ended(0, "", run.folder)


def secrets_in(folder: Path) -> list[str]:
    """Return the files under a folder that hold a token of the emulator's."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and b"secret-token-" in path.read_bytes()]


def standing(cloud: Emulator) -> list[str]:
    """Return the deployments that exist."""
    return [name for name, each in cloud.deployments.items() if each.deleted_at is None]


def created_once(cloud: Emulator) -> bool:
    """Say whether there was one job at most and one file at most for each content, and nothing was out of shape."""
    contents = [file.content for file in cloud.created_files]
    return len(cloud.created_jobs) <= 1 and len(contents) == len(set(contents)) and not cloud.violations
