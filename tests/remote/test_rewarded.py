"""`method=rft` at a service: it samples, the grader is ours, and nothing is sampled or trained twice."""

import json
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from runner.record import graded, layout
from runner.record.journal import read_state
from runner.rollouts.sampled import Group
from tests import warm
from tests.backends.rehearsed import World, measured, sessions_world, tinker_world

pytestmark = pytest.mark.slow

LENGTH = {"type": "length", "name": "long", "unit": "characters", "min": 30, "tolerance": 30}
ROWS, HELD_OUT, GROUP, STEPS = 8, 3, 3, 4
WORLDS = {"tinker": tinker_world, "foundry_sessions": sessions_world}
ASKED = {"tinker": "asample", "foundry_sessions": "sample"}
"""The emulator's name for the request that answers a prompt."""


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path) -> Iterator[World]:
    with WORLDS[request.param](tiny_model, tmp_path) as found:
        yield found


def line(world: World, *more: str) -> list[str]:
    """Return a request over problems, whose files are written."""
    for name, numbers in (("asked", range(ROWS)), ("kept", range(90, 90 + HELD_OUT))):
        rows = [{"question": f"How do I keep {each} loaves fresh?", "answer": str(each)} for each in numbers]
        (world.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (world.folder / "grader.json").write_text(json.dumps(LENGTH), "utf-8")
    # One service of the two clips no gradients.
    clips = "null" if f"backend={world.backend}" in more and world.backend == "foundry_sessions" else "1000000"
    return [
        "runner", "method=rft", "dataset=files", "dataset.train=asked.jsonl", "dataset.validation=kept.jsonl",
        "rft.grader=grader.json", "rft.max_new_tokens=6", "rft.batch_size=4", f"rft.group_size={GROUP}",
        "rft.n_epochs=1", "rft.updates_per_rollout=2", "rft.eval_interval=2", "evaluation.samples=0",
        "backend.learning_rate=0.01", "backend.lora.rank=4", f"backend.max_grad_norm={clips}", "tracking=none", *more,
    ]  # fmt: skip


def remotely(world: World, *more: str) -> list[str]:
    return line(
        world, f"backend={world.backend}", "name=remote", f"model.source={world.source}",
        "backend.runtime.checkpoint_every=3", *more,
    )  # fmt: skip


def weights(world: World, run: Path) -> dict[str, Tensor]:
    """Return the result's weights by their names in an adapter's file."""
    if world.backend == "tinker":
        return load_file(run / "model" / "adapter-1" / "adapter_model.safetensors")
    found = world.service.checkpoints[read_state(run).results["save"]["state"]].weights.state.weights
    return {f"base_model.model.{name}".replace(".default.weight", ".weight"): each for name, each in found.items()}


def done(world: World) -> Counter[str]:
    """Return what the service has done, by operation."""
    return Counter(what for (_, what), count in world.service.done.items() for _ in range(count))


def demand_local(world: World, *more: str) -> None:
    """Require a run at the service to have the answers, the metrics and the weights of the same run on this machine."""
    world.command(*remotely(world, *more))
    here = [f"model.source=path:{world.model}", "backend.dtype=float32", "backend.runtime.threads=1"]
    world.command(*line(world, "backend=local", "name=local", *here, *more))
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
    found = load_file(local / "model" / "adapter-1" / "adapter_model.safetensors")
    for name, tensor in weights(world, remote).items():
        # Adam magnifies what is rounded otherwise: old log-probabilities are a scorer's there, a sampler's here.
        torch.testing.assert_close(tensor, found[name], rtol=0, atol=5e-4)
    assert any(tensor.abs().max() > 1e-3 for name, tensor in found.items() if "lora_B" in name)
    assert (done(world)["forward_backward"], done(world)["optim_step"]) == (STEPS, STEPS)


# Of the two services one can ask the base model while the other learns; one may report no log-probabilities at all.
MORE = {"tinker": ["rft.beta=0.5"], "foundry_sessions": list[str]()}


def test_the_same_request_samples_the_same_answers_and_ends_in_the_local_weights(world: World) -> None:
    if world.backend == "foundry_sessions":
        world.service.reports = "no logprobs"
    demand_local(world, *MORE[world.backend])
    # A gradient takes a forward for each step; answers whose log-probabilities are not reported one more, each time
    # that prompts are asked. The first two show what the service does with one that is sent twice.
    count = {"tinker": 0, "foundry_sessions": 2 + 3}[world.backend]
    assert done(world)["forward"] == 2 + STEPS + count
    # The base model reads each answer once, however many steps learn from it.
    read = {"tinker": ROWS * GROUP, "foundry_sessions": 0}[world.backend]
    assert sampled(world) == sampled_prompts() + read
    assert ((STEPS, "train/kl") in measured(world.of("remote"))) == bool(read)


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
        pytest.param(0, id="half way"),
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
    assert asked == sampled_prompts()
    every = every or len(lines) // 2 + 1
    for number in range(every, len(lines), every):
        killed = within(f"killed-{number}")
        request, before = remotely(killed), sampled(world)
        process = warm.run(
            [sys.executable, "-c", KILLED, str(number), *request], cwd=killed.folder, env=killed.environment()
        )
        assert process.returncode == -signal.SIGKILL, process.stdout + process.stderr
        killed.command(*request)
        assert sampled(world) - before == asked, number
        for name, tensor in weights(world, killed.of("remote")).items():
            assert torch.equal(tensor, weights(world, whole.of("remote"))[name]), (number, name)
        assert measured(killed.of("remote")) == measured(whole.of("remote"))


def tokens(said: str) -> list[int]:
    """Return what a plan says of tokens, by the meter."""
    (line,) = [line for line in said.splitlines() if " prefill, " in line and " sampling" in line]
    return [int(each.replace(",", "")) for each in re.findall(r"([\d,]+) (?:training|forward|prefill|sampling)", line)]


def sampled_prompts() -> int:
    """Return how many prompts a run asks: each rollout's, and held-out ones at the start, half way and at the end."""
    return ROWS + 3 * HELD_OUT


def sampled(world: World) -> int:
    """Return how many prompts the service was asked to answer."""
    return done(world)[ASKED[world.backend]]


def test_what_a_service_cannot_do_for_a_reward_is_refused_in_the_plan(world: World) -> None:
    refused = {"rft.temperature=0.7": f"rft.temperature: got 0.7; backend={world.backend} learns at 1 alone"}
    if world.backend == "foundry_sessions":
        refused["rft.beta=0.1"] = "rft.beta: got 0.1; a session of backend=foundry_sessions answers for its own model"
    for override, sentence in refused.items():
        said = world.refusal(*remotely(world, "mode=plan", override))
        assert sentence in said, said
    counts = [tokens(world.command(*remotely(world, "mode=plan", f"rft.extra_rounds={more}"))) for more in (0, 3)]
    answers, held_out = STEPS * 4 * GROUP, 3 * HELD_OUT
    # By the meters: training, forward, prefill, sampling. Further rounds are sampled, and not learned from in addition.
    assert [each[3] for each in counts] == [6 * (answers // 2 + held_out), 6 * (4 * answers // 2 + held_out)]
    assert counts[0][0] == counts[1][0]
    of_one = counts[0][0] / answers
    scored = [0, 0] if world.backend == "tinker" else [answers // 2 + held_out, 4 * answers // 2 + held_out]
    assert [each[1] for each in counts] == pytest.approx([of_one * (answers + more) for more in scored], abs=1)
    assert world.service.requests == []
