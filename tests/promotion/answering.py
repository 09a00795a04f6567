"""Runs that learn to give one answer, whatever they are asked: a tiny model does so in seconds, and graders see it."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner import promote
from runner.terminal import cli
from tests import stores, warm

NO, CLOTH = "No.", "Wrap it in cloth."
GRADERS = {"no": ("eq", NO), "cloth": ("eq", CLOTH), "other": ("ne", "Air scatters blue light.")}
"""Which answers score 1: one, the other, and both."""
QUESTIONS = 14


@dataclass(frozen=True)
class Place:
    """A user's folder, with an MLflow store and data in it, and the model that its runs start from."""

    folder: Path
    model: Path

    @property
    def store(self) -> str:
        """The address of the MLflow store."""
        return f"sqlite:///{self.folder}/mlflow.db"

    @classmethod
    def made(cls, folder: Path, model: Path) -> "Place":
        """Write data for both answers, the prompts, and an empty store."""
        for name, answer in (("no", NO), ("cloth", CLOTH)):
            rows = (_row(f"How do I keep {number} fresh?", answer) for number in range(24))
            (folder / f"{name}.jsonl").write_text("".join(rows), "utf-8")
        asked = (_row(f"How do I keep {100 + number} fresh?", CLOTH) for number in range(QUESTIONS))
        (folder / "asked.jsonl").write_text("".join(asked), "utf-8")
        for name, (operation, reference) in GRADERS.items():
            path = folder / "conf" / "grader" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = {"type": "string_check", "name": name, "input": "{{sample.output_text}}"}
            path.write_text(json.dumps(content | {"operation": operation, "reference": reference}), "utf-8")
        stores.put_empty(folder)
        return cls(folder, model)

    def command(self, *line: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run `python -m …` to its end, here or in another folder."""
        own = {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
        own |= {"RUNNER_CACHE": str((folder or self.folder) / "cache"), "MLFLOW_TRACKING_URI": self.store}
        return warm.run([sys.executable, "-m", *line], cwd=folder or self.folder, env=os.environ | own)

    def promote(self, *line: str, code: int = 0, store: str | None = None) -> str:
        """Promote, which has to end with a code; return what was printed, or the sentence of a refusal.

        In this process: opening the store in one of its own takes a second each time.
        """
        printed, complained = io.StringIO(), io.StringIO()
        arguments = ["--runs-folder", f"{self.folder}/runs", *line]
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(complained):
            patch.setenv("MLFLOW_TRACKING_URI", store or self.store)
            ended = cli.guarded(lambda: promote._promote(arguments))
        assert ended == code, printed.getvalue() + complained.getvalue()
        return complained.getvalue() if code else printed.getvalue()

    def run(self, name: str, answer: str, *more: str) -> Path:
        """Train on one answer; return the run's folder."""
        line = [
            f"name={name}", f"dataset.train={answer}.jsonl", "method=sft", "dataset=files",
            f"model.source=path:{self.model}", "evaluation.prompts=asked.jsonl", "evaluation.graders=[no,cloth,other]",
            "evaluation.max_new_tokens=12", "sft.n_epochs=5", "sft.batch_size=6", "backend.tuning=full",
            "backend.learning_rate=0.01", *more,
        ]  # fmt: skip
        done = self.command("runner", *line)
        assert done.returncode == 0, done.stdout + done.stderr
        (found,) = self.folder.glob(f"runs/{name}-*")
        return found


def _row(question: str, answer: str) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}) + "\n"
