"""A run can be killed or stopped anywhere, and the same command continues to the same bits."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.record.events import Metrics, StepDone
from runner.record.journal import read
from tests import waiting, warm

pytestmark = pytest.mark.slow


def arguments(model: Path, data: Path, *more: str) -> list[str]:
    return [
        f"model.source=path:{model}", f"dataset.train={data}", "dataset.validation=null", "dataset.style=null",
        "dataset.validation_fraction=0.25", "evaluation.samples=2", "evaluation.max_new_tokens=4", "evaluation.every=7",
        "dpo.n_epochs=6", "dpo.batch_size=2", "backend.lora.dropout=0.1", "backend.runtime.threads=1",
        "backend.runtime.checkpoint_every=3", "tracking=none", *more,
    ]  # fmt: skip


def run_command(folder: Path, *line: str, typed: str | None = None) -> subprocess.CompletedProcess[str]:
    return warm.run([sys.executable, *line], cwd=folder, env=quietly(), input=typed)


def quietly() -> dict[str, str]:
    """Return the variables that a command sees."""
    return os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def the_run(folder: Path) -> Path:
    (found,) = (path.parent for path in folder.glob("runs/*/journal.jsonl"))
    return found


def adapter(folder: Path) -> bytes:
    return (the_run(folder) / "model" / "adapter-1" / "adapter_model.safetensors").read_bytes()


OPTIONS = {
    "lora": [],
    "full": ["backend.tuning=full", "backend.weight_decay=0.1", "backend.runtime.tokens_at_once=100"],
    "many": [
        "backend.lora.dora=true", "backend.lora.rslora=true", "backend.ema_decay=0.9", "backend.neftune_alpha=5",
        "evaluation.keep=best",
    ],
    "again": [
        "backend.runtime.gradient_checkpointing=true", "backend.runtime.checkpoints=3", "evaluation.patience=1",
        "evaluation.every=3", "backend.learning_rate=0.05",
    ],
}  # fmt: skip
"""Each option is resumed by itself in training/test_loop.py, also those that are `exhaustive` here: this is how real
processes are killed, which `lora` and `many` (what is kept next to the weights) show."""


@pytest.mark.parametrize(
    ("more", "kills"),
    [
        pytest.param(more, 6, id=name, marks=[pytest.mark.exhaustive] * (name in ("again", "full")))
        for name, more in OPTIONS.items()
    ],
)
def test_kills_at_random_moments_change_no_bit(
    more: list[str], kills: int, tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir(), killed.mkdir()
    line = ["-m", "runner", *arguments(tiny_model, pairs_file, *more)]
    run_command(undisturbed, "-c", "pass")  # else the start of the process that forks would be timed as well
    began = time.monotonic()
    whole = run_command(undisturbed, *line)
    assert whole.returncode == 0, whole.stderr
    # Half of it, so that a killed process gets some way, but seldom to the end.
    seconds, moments = (time.monotonic() - began) / 2, random.Random(5)
    statuses = []
    for _ in range(kills):
        statuses.append(killed_after(moments.uniform(0, seconds), killed, *line))
        if statuses == [0]:  # the undisturbed run was the slower one, on a busy machine: nothing is left to kill
            shutil.rmtree(killed / "runs")
            statuses, seconds = [], seconds / 2
    assert statuses.count(-signal.SIGKILL) >= min(3, kills // 3), "the kills came too late to disturb anything"
    last = run_command(killed, *line)
    assert last.returncode == 0, last.stderr
    weights = "model.safetensors" if "full" in "".join(more) else "adapter-1/adapter_model.safetensors"
    one, other = the_run(undisturbed), the_run(killed)
    assert one.name == other.name
    assert (one / "model" / weights).read_bytes() == (other / "model" / weights).read_bytes()
    assert measured(one) == measured(other)
    assert (one / "evaluation.jsonl").read_bytes() == (other / "evaluation.jsonl").read_bytes()


def killed_after(seconds: float, folder: Path, *line: str) -> int:
    """Run a command for so long; return how it ended."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with warm.Popen([sys.executable, *line], cwd=folder, env=quietly(), **quiet) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        return process.wait(60)


def measured(run: Path) -> list[tuple[int, dict[str, float]]]:
    """Return what the journal holds of metrics, in order of steps, but for the speed."""
    events = [record.event for record in read(run / "journal.jsonl") if isinstance(record.event, Metrics)]
    kept = [(e.step, {k: v for k, v in e.values.items() if not k.startswith("system/")}) for e in events]
    return sorted(kept, key=lambda each: (each[0], sorted(each[1])))


def test_ctrl_c_stops_cleanly_and_the_same_command_continues(
    tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    line = [sys.executable, "-m", "runner", *arguments(tiny_model, pairs_file, "dpo.n_epochs=2000")]
    pipe = subprocess.PIPE
    process = warm.Popen(line, cwd=tmp_path, env=quietly(), stdout=pipe, stderr=pipe, text=True)
    wait_for_metrics(tmp_path, 5, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "give the same command again to continue" in output
    report = json.loads((the_run(tmp_path) / "report.json").read_bytes())
    assert report["status"] == "stopped"
    stopped_at = max(
        record.event.step for record in read(the_run(tmp_path) / "journal.jsonl") if isinstance(record.event, Metrics)
    )
    again = run_command(tmp_path, "-m", "runner", *arguments(tiny_model, pairs_file, "dpo.n_epochs=2000"), "mode=plan")
    assert again.returncode == 0
    assert list((the_run(tmp_path) / "checkpoints").glob("step-*"))[-1].name == f"step-{stopped_at:08d}"


def test_two_processes_with_one_plan_do_not_both_work(tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    line = arguments(tiny_model, pairs_file, "dpo.n_epochs=2000")
    first = warm.Popen([sys.executable, "-m", "runner", *line], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        wait_for_metrics(tmp_path, 1, first)
        second = run_command(tmp_path, "-m", "runner", *line)
    finally:
        first.kill()
        first.wait(60)
    assert second.returncode == 1
    assert f"process {first.pid} " in second.stderr
    assert "works on this plan already" in second.stderr


def test_a_finished_plan_is_not_trained_again_unless_asked(tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    line = arguments(tiny_model, pairs_file)
    assert run_command(tmp_path, "-m", "runner", *line).returncode == 0
    before, weights = (the_run(tmp_path) / "journal.jsonl").read_bytes(), adapter(tmp_path)
    second = run_command(tmp_path, "-m", "runner", *line, "name=other")
    assert second.returncode == 0
    assert "finished before" in second.stdout
    assert (the_run(tmp_path) / "journal.jsonl").read_bytes() == before
    assert run_command(tmp_path, "-m", "runner", *line, "again=true").returncode == 0
    (again,) = (path for path in tmp_path.glob("runs/*/journal.jsonl") if ".before-" not in path.parent.name)
    assert again.read_bytes() != before
    assert (again.parent / "model" / "adapter-1" / "adapter_model.safetensors").read_bytes() == weights


def test_other_samples_are_drawn_without_training_again(tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    assert run_command(tmp_path, "-m", "runner", *arguments(tiny_model, pairs_file)).returncode == 0
    more = run_command(tmp_path, "-m", "runner", *arguments(tiny_model, pairs_file, "evaluation.samples=3"))
    assert more.returncode == 0, more.stderr
    done = [r.event.step for r in read(the_run(tmp_path) / "journal.jsonl") if isinstance(r.event, StepDone)]
    assert done == ["prepare", "train", "save", "evaluate", "sample", "sample"]


def test_a_second_stage_starts_from_the_first_ones_model(tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    assert run_command(tmp_path, "-m", "runner", *arguments(tiny_model, pairs_file, "name=first")).returncode == 0
    line = [*arguments(tiny_model, pairs_file, "name=second"), "model.source=run:first"]
    second = run_command(tmp_path, "-m", "runner", *line)
    assert second.returncode == 0, second.stderr
    (folder,) = tmp_path.glob("runs/second-*")
    reference = json.loads((folder / "model" / "reference.json").read_bytes())
    assert reference["adapters"] == ["adapter-1", "adapter-2"]
    assert reference["base"]["source"] == f"path:{tiny_model}"
    chat = run_command(tmp_path, "-m", "runner.chat", folder.name, typed="Why?\n\n")
    assert chat.returncode == 0, chat.stderr
    assert "tuned" in chat.stdout


def wait_for_metrics(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    def measured_so_far() -> int:
        journals = list(folder.glob("runs/*/journal.jsonl"))
        return sum(isinstance(record.event, Metrics) for record in read(journals[0])) if journals else 0

    waiting.until(lambda: measured_so_far() >= count, f"{count} metrics in the journal", process=process)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.exhaustive)])
def test_a_mixture_that_is_killed_learns_the_same_rows_in_the_same_order(
    kills: int, tiny_model: Path, tmp_path: Path
) -> None:
    """Losses and weights that are equal to the bit, step by step, are those of the same rows in the same order."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    weights = {"chat": 60, "code": 30, "math": 10}
    for name in weights:
        rows = [{"prompt": f"{name} {n}?", "chosen": f"Yes {n}.", "rejected": f"No {n}."} for n in range(24)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    undisturbed.mkdir(), killed.mkdir()
    entries = ",".join(f"{name}:{{source:{tmp_path}/{name}.jsonl,weight:{weight}}}" for name, weight in weights.items())
    usual = [each for each in arguments(tiny_model, tmp_path) if not each.startswith("dataset.train")]
    line = ["-m", "runner", "dataset=files", *usual, "dpo.n_epochs=2", f"dataset.mix={{{entries}}}"]
    run_command(undisturbed, "-c", "pass")
    began = time.monotonic()
    whole = run_command(undisturbed, *line)
    assert whole.returncode == 0, whole.stderr
    seconds, moments = (time.monotonic() - began) / 2, random.Random(7)
    statuses = [killed_after(moments.uniform(seconds / 2, seconds), killed, *line) for _ in range(kills)]
    assert -signal.SIGKILL in statuses, "the kills came too late to disturb anything"
    last = run_command(killed, *line)
    assert last.returncode == 0, last.stderr
    assert measured(the_run(undisturbed)) == measured(the_run(killed))
    assert adapter(undisturbed) == adapter(killed)
    names = {name for _, values in measured(the_run(killed)) for name in values}
    assert {"eval/chat/loss", "eval/code/loss"} <= names
