"""A folder in which sweeps of a tiny model are run by real commands."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import stores, warm


@dataclass(frozen=True)
class Here:
    """Where commands run, the model and the rows."""

    folder: Path
    model: Path
    rows: Path

    def line(self, *more: str, sweep: bool = True) -> list[str]:
        """Return the command line of a sweep, or of one run."""
        keys = [
            f"model.source=path:{self.model}", f"dataset.train={self.rows}", "dataset.validation=null",
            "dataset.style=null", "dataset.validation_fraction=0.25", "evaluation.samples=0", "dpo.n_epochs=1",
            "dpo.batch_size=2", "dpo.rpo_alpha=0",
        ]  # fmt: skip
        return [sys.executable, "-m", "runner", *(["-m"] if sweep else []), *keys, *more]

    def environment(self) -> dict[str, str]:
        """Return the variables that a command sees."""
        more = {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return os.environ | more | {"RUNNER_CACHE": str(self.folder / "cache")}

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Run a sweep to its end."""
        return warm.run(self.line(*more), cwd=self.folder, env=self.environment())

    def start(self, *more: str, sweep: bool = True, **options: Any) -> warm.Popen:
        """Start a sweep, or one run, whose output is captured as text."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return warm.Popen(self.line(*more, sweep=sweep), cwd=self.folder, env=self.environment(), **(pipes | options))

    def compare(self, *more: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Compare runs to the end, here or in another folder."""
        line, store = [sys.executable, "-m", "runner.compare", *more], f"sqlite:///{self.folder}/mlflow.db"
        return warm.run(line, cwd=folder or self.folder, env=self.environment() | {"MLFLOW_TRACKING_URI": store})

    def summary(self) -> dict[str, Any]:
        """Return the summary of the one sweep that there is."""
        (path,) = self.folder.glob("runs/sweeps/*/summary.json")
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found


@pytest.fixture
def here(tmp_path: Path, tiny_model: Path, pairs_file: Path) -> Here:
    stores.put_empty(tmp_path)
    return Here(tmp_path, tiny_model, pairs_file)
