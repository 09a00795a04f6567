"""Answers by vLLM's program while the model learns here: the emulated one, and vLLM itself where RUNNER_VLLM names it.

The program is a process that is reached over HTTP; it is handed the adapter by a folder, as vLLM is.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from runner import api
from runner.backends.local import generators
from runner.backends.local.keys import Local, Lora, Runtime
from runner.errors import RequestError
from runner.record import graded
from runner.rollouts.sampled import Group
from tests import waiting, warm
from tests.backends.local.rewarded.test_steps import arguments, problems
from tests.execution.test_resume import adapter, measured, quietly, run_command, the_run

__all__ = ["problems"]

REAL = os.environ.get("RUNNER_VLLM")


@pytest.fixture
def vllm(emulated_vllm: Path) -> Path:
    return emulated_vllm


def asked(model: Path) -> list[dict[str, Any]]:
    """Return what the emulated program was asked, but for whether it is there."""
    lines = [json.loads(line) for line in model.with_name("model.asked.jsonl").read_text().splitlines()]
    return [line for line in lines if line["path"] != "/health"]


def by_vllm(program: Path | str, *more: str) -> list[str]:
    return ["backend.generator=vllm", f"backend.runtime.vllm={program}", "backend.dtype=float32", *more]


@pytest.mark.slow
def test_a_run_learns_from_answers_of_vllm_by_the_weights_of_each_step(
    tiny_model: Path, problems: Path, tmp_path: Path, vllm: Path
) -> None:
    model = copied(tiny_model, tmp_path)
    done = run_command(tmp_path, "-m", "runner", *arguments(model, problems), *by_vllm(vllm))
    assert done.returncode == 0, done.stderr
    requests = asked(model)
    loaded = [each["lora_name"] for each in requests if each["path"] == "/v1/load_lora_adapter"]
    unloaded = [each["lora_name"] for each in requests if each["path"] == "/v1/unload_lora_adapter"]
    # The weights at the start and after each of two steps, the last for the evaluation.
    assert len(set(loaded)) == len(loaded) == 3
    assert unloaded == loaded[:-1]
    answered = [each["model"] for each in requests if each["path"] == "/v1/completions"]
    assert [name for place, name in enumerate(answered) if name not in answered[:place]] == loaded
    assert all(np.isfinite(list(values.values())).all() for _, values in measured(the_run(tmp_path)))
    groups = [graded.read(path, Group) for path in sorted(the_run(tmp_path).glob("rollouts/step-*/sampled.jsonl"))]
    assert {len(each.answers) for step in groups for each in step} == {3}
    assert adapter(tmp_path)


def copied(model: Path, folder: Path) -> Path:
    """Return a copy of a model, next to which the emulated program writes what it was asked."""
    copy = folder / "model"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reported"),
    [("base", "vLLM answers by other weights than those that learn: the log-probabilities of "),
     pytest.param("dies", "EngineCore: out of memory", marks=pytest.mark.exhaustive)],
)  # fmt: skip
def test_a_program_that_answers_by_other_weights_or_dies_ends_the_run_in_a_sentence(
    fault: str, reported: str, tiny_model: Path, problems: Path, tmp_path: Path, vllm: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("EMULATED_VLLM", fault)
    model = copied(tiny_model, tmp_path)
    line = [*arguments(model, problems), *by_vllm(vllm), "backend.learning_rate=0.3", "rft.n_epochs=3"]
    done = run_command(tmp_path, "-m", "runner", *line)
    assert done.returncode == 1
    assert reported in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_program_ends_with_a_run_that_is_killed_and_the_same_command_asks_for_no_kept_answer_again(
    tiny_model: Path, problems: Path, tmp_path: Path, vllm: Path
) -> None:
    model = copied(tiny_model, tmp_path)
    line = ["-m", "runner", *arguments(model, problems), *by_vllm(vllm)]
    process = warm.Popen([sys.executable, *line], cwd=tmp_path, env=quietly())
    kept = "runs/*/rollouts/step-00000001/sampled.jsonl"
    waiting.until(lambda: list(tmp_path.glob(kept)), "answers after a step")
    process.send_signal(signal.SIGKILL)
    process.wait(waiting.SECONDS)
    waiting.until(lambda: not serving(model), "vLLM's process to end")
    before = {path: path.read_bytes() for path in tmp_path.glob("runs/*/rollouts/*/sampled.jsonl")}
    done = run_command(tmp_path, *line)
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not serving(model)


def serving(model: Path) -> list[str]:
    """Return the processes that serve a model."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # ended meanwhile
            continue
        if b"serve" in words and str(model).encode() in words:
            found.append(path.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="RUNNER_VLLM names no program vllm")
def test_vllm_itself_answers_by_the_weights_that_learn(problems: Path, tmp_path: Path) -> None:
    assert REAL is not None
    line = [each for each in arguments(tmp_path, problems) if not each.startswith("model.source")]
    done = run_command(tmp_path, "-m", "runner", *line, *by_vllm(REAL, "backend.max_steps=2"))
    assert done.returncode == 0, done.stderr


REFUSED = [
    (["tuning=full"], "which cannot be handed weights that all learn (backend.tuning=full)"),
    (["lora.dora=true"], "which cannot be handed DoRA's magnitudes (backend.lora.dora)"),
    (["runtime.vllm=nowhere/vllm"], "but no program nowhere/vllm is found; install vLLM, in an environment of"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "reported"), REFUSED)
def test_what_vllm_cannot_be_handed_is_refused_by_the_plan(
    keys: list[str], reported: str, tiny_model: Path, problems: Path, vllm: Path
) -> None:
    line = [*arguments(tiny_model, problems), *by_vllm(vllm), *(f"backend.{key}" for key in keys)]
    with pytest.raises(RequestError) as caught:
        api.plan(*line)
    assert str(caught.value).startswith(f"backend.generator: got vllm, {reported}")
    assert str(caught.value).endswith("; use generator=own.")


def test_a_method_that_learns_from_stored_answers_has_no_use_for_it(tiny_model: Path, pairs_file: Path) -> None:
    with pytest.raises(RequestError, match="got vllm, with a method that learns from stored answers"):
        api.plan(
            "dataset=files", f"dataset.train={pairs_file}", "dataset.validation=null", "backend.generator=vllm",
            f"model.source=path:{tiny_model}",
        )  # fmt: skip


def test_auto_takes_it_for_an_adapter_on_a_gpu_where_its_program_is_found(vllm: Path) -> None:
    here, settings = Runtime(vllm=str(vllm)), Local(runtime=Runtime(vllm=str(vllm)))
    assert generators.choose(settings, on_gpu=True) == ("vllm", "it is installed, and there is a GPU")
    assert generators.choose(settings, on_gpu=False) == ("own", "vLLM is faster on a GPU only")
    assert generators.choose(Local(runtime=Runtime(vllm="nowhere")), on_gpu=True)[0] == "own"
    assert generators.choose(Local(runtime=here, lora=Lora(dora=True)), on_gpu=True)[0] == "own"


def test_the_plan_is_another_one_by_vllm_alone(tiny_model: Path, problems: Path, vllm: Path) -> None:
    plain = api.plan(*arguments(tiny_model, problems), "backend.dtype=float32")
    own = api.plan(*arguments(tiny_model, problems), "backend.dtype=float32", "backend.generator=own")
    other = api.plan(*arguments(tiny_model, problems), *by_vllm(vllm))
    assert plain.run.plan.id == own.run.plan.id != other.run.plan.id
    assert msgspec.to_builtins(other.run.plan.settings)["generator"] == "vllm"
