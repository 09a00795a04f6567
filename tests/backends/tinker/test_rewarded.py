"""`method=rft backend=tinker`: the service samples, the grader is ours, and nothing is sampled or trained twice."""

import json
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runner.record import graded, layout
from runner.rollouts.sampled import Group
from tests import warm
from tests.backends.rehearsed import World, measured

pytestmark = pytest.mark.slow

LENGTH = {"type": "length", "name": "long", "unit": "characters", "min": 30, "tolerance": 30}
ROWS, HELD_OUT, GROUP, STEPS = 8, 3, 3, 4


def line(world: World, *more: str) -> list[str]:
    """Return a request over problems, whose files are written."""
    for name, numbers in (("asked", range(ROWS)), ("kept", range(90, 90 + HELD_OUT))):
        rows = [{"question": f"How do I keep {each} loaves fresh?", "answer": str(each)} for each in numbers]
        (world.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (world.folder / "grader.json").write_text(json.dumps(LENGTH), "utf-8")
    return [
        "runner", "method=rft", "dataset=files", "dataset.train=asked.jsonl", "dataset.validation=kept.jsonl",
        "rft.grader=grader.json", "rft.max_new_tokens=6", "rft.batch_size=4", f"rft.group_size={GROUP}",
        "rft.n_epochs=1", "rft.updates_per_rollout=2", "rft.eval_interval=2", "evaluation.samples=0",
        "backend.learning_rate=0.01", "backend.lora.rank=4", "tracking=none", *more,
    ]  # fmt: skip


def remotely(world: World, *more: str) -> list[str]:
    return line(
        world, "backend=tinker", "name=remote", f"model.source={world.source}", "backend.runtime.checkpoint_every=3",
        *more,
    )  # fmt: skip


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "adapter-1" / "adapter_model.safetensors")


def test_the_same_request_samples_the_same_answers_and_ends_in_the_local_weights(world: World) -> None:
    world.command(*remotely(world))
    here = [f"model.source=path:{world.model}", "backend.dtype=float32", "backend.runtime.threads=1"]
    world.command(*line(world, "backend=local", "name=local", *here))
    remote, local = world.of("remote"), world.of("local")
    for number in range(STEPS // 2):
        ours, theirs = (
            graded.read(run / layout.ROLLOUTS / f"step-{number:08d}" / layout.SAMPLED, Group) for run in (remote, local)
        )
        assert [[each.ids for each in group.answers] for group in ours] == [
            [each.ids for each in group.answers] for group in theirs
        ]
    assert measured(remote) == pytest.approx(measured(local), rel=1e-3, abs=1e-4)
    assert {step for step, name in measured(remote) if name == "eval/reward"} == {0, 2, 4}
    for name, tensor in adapter(remote).items():
        torch.testing.assert_close(tensor, adapter(local)[name], rtol=0, atol=1e-4)
    assert any(tensor.abs().max() > 1e-3 for name, tensor in adapter(remote).items() if "lora_B" in name)
    done = Counter(what for (_, what), count in world.service.done.items() for _ in range(count))
    assert (done["forward_backward"], done["optim_step"]) == (STEPS, STEPS)


KILLED = """
import os, signal, sys
from runner.remote.engine.ledger import Ledger
add, left = Ledger.add, int(sys.argv[1])
def add_and_kill(self, line):
    global left
    add(self, line)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
Ledger.add = add_and_kill
sys.argv[1:] = sys.argv[3:]
from runner.__main__ import main
main()
"""


@pytest.mark.parametrize(
    "every",
    [
        # Two commands for each of some hundred records: longer than any other test may take.
        pytest.param(1, marks=[pytest.mark.exhaustive, pytest.mark.timeout(3600)], id="every record"),
        pytest.param(29, id="some records"),
    ],
)
def test_after_a_kill_behind_a_record_of_the_ledger_nothing_is_sampled_again_and_the_bits_are_the_same(
    world: World, every: int
) -> None:
    def within(name: str) -> World:
        (world.folder / name).mkdir()
        return replace(world, folder=world.folder / name)

    whole = within("whole")
    whole.command(*remotely(whole))
    lines = (whole.of("remote") / layout.LEDGER).read_bytes().splitlines()
    asked = sampled(world)
    assert asked == ROWS + 3 * HELD_OUT, "each rollout, and the held-out rows at the start, half way and at the end"
    for number in range(every, len(lines), every):
        killed = within(f"killed-{number}")
        request, before = remotely(killed), sampled(world)
        done = warm.run(
            [sys.executable, "-c", KILLED, str(number), *request], cwd=killed.folder, env=killed.environment()
        )
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
        killed.command(*request)
        assert sampled(world) - before == asked, number
        for name, tensor in adapter(killed.of("remote")).items():
            assert torch.equal(tensor, adapter(whole.of("remote"))[name]), (number, name)
        assert measured(killed.of("remote")) == measured(whole.of("remote"))


def sampled(world: World) -> int:
    """Return how many prompts the service was asked to answer."""
    return sum(count for (_, what), count in world.service.done.items() if what == "asample")


def test_what_a_service_cannot_do_for_a_reward_is_refused_in_the_plan(world: World) -> None:
    refused = {
        "rft.temperature=0.7": "rft.temperature: got 0.7",
        "rft.beta=0.1": "rft.beta: got 0.1; backend=tinker has no log-probabilities of the base model",
    }
    for override, sentence in refused.items():
        said = world.command(*remotely(world, "mode=plan", override), code=2)
        assert sentence in said, said
    said = world.command(*remotely(world, "mode=plan"))
    assert "answers to sample and grade" in said
    assert world.service.requests == []
