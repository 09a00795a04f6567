"""`backend=foundry_sessions` from the request to the tuned model, by the real commands, next to the same locally."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runner.record.journal import read_state
from tests import stores
from tests.backends.rehearsed import BASE, World, measured

pytestmark = pytest.mark.slow

UNCLIPPED = "backend.max_grad_norm=1000000"
"""What the local backend is given to do as the service does it."""
LOGGED = """
import json
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
(run,) = client.search_runs([client.get_experiment_by_name("runner").experiment_id])
(model,) = client.search_logged_models([run.info.experiment_id])
print(json.dumps([run.data.metrics, model.tags["runner.model"]]))
"""


def known(values: dict[tuple[int, str], float]) -> dict[tuple[int, str], float]:
    """Return the values that a service can give: it does not report which tokens are the likeliest."""
    return {key: value for key, value in values.items() if "token_accuracy" not in key[1]}


def demand_local_weights(world: World, run: Path, local: Path) -> None:
    """Require the result at the service to be the local adapter."""
    state = read_state(run).results["save"]["state"]
    ours = load_file(local / "model" / "adapter-1" / "adapter_model.safetensors")
    theirs = world.service.checkpoints[state].weights.state.weights
    assert len(ours) == len(theirs)
    for name, tensor in ours.items():
        key = name.removeprefix("base_model.model.").replace(".weight", ".default.weight")
        torch.testing.assert_close(theirs[key], tensor, rtol=0, atol=1e-5)


def locally(world: World, line: list[str]) -> Path:
    more = [f"model.source=path:{world.model}", UNCLIPPED, "backend.dtype=float32", "backend.runtime.threads=1"]
    world.command(*line, "backend=local", "name=local", *more)
    return world.of("local")


def test_the_same_request_gives_the_model_and_the_metrics_of_this_machine_and_its_result_is_a_name(
    world: World,
) -> None:
    service: Any = world.service
    stores.put_empty(world.folder)
    run = world.run("remote", "evaluation.keep=best", "tracking=mlflow")
    local = locally(world, world.line("evaluation.keep=best"))
    assert measured(run) == pytest.approx(known(measured(local)), rel=1e-4, abs=1e-5)
    demand_local_weights(world, run, local)
    assert json.loads((run / "samples.json").read_bytes()) == json.loads((local / "samples.json").read_bytes())
    result = read_state(run).results["save"]
    assert result["model"].startswith("session:session_")
    metrics, model = json.loads(world.script(LOGGED))
    assert model == result["model"]
    assert metrics["eval/loss"] == pytest.approx(measured(local)[6, "eval/loss"], rel=1e-4)
    assert "remote" in world.command("runner.compare", run.name, local.name)
    # The result answers, by its run and by its name; the base model, too.
    said = world.command("runner.chat", run.name, typed="How do I keep bread fresh?\n")
    assert "base" in said
    assert "tuned" in said
    named = f"{result['model']}@path:{world.model}"
    world.command(
        "runner.evaluate",
        named,
        world.source,
        "backend=foundry_sessions",
        "evaluation.graders=[house_style]",
        "evaluation.prompts=held_out.jsonl",
        "evaluation.samples=2",
    )
    # It is gone on from: with its adapter, and the reference is its result.
    again = world.run("second", f"model.source=run:{run.name}", "dpo.n_epochs=1", "evaluation.samples=0")
    begun = {name: value for (step, name), value in measured(again).items() if step == 0}
    assert begun["eval/reward_margin"] == pytest.approx(0, abs=1e-6)
    assert service.checkpoints[read_state(again).results["save"]["state"]].weights.steps == 6 + 3
    world.command("runner.clean", "--yes", run.name)
    assert not [path for path in service.checkpoints if path.split("/")[2] == result["state"].split("/")[2]]


# Six steps of it are in tests/remote/test_engine.py, too.
@pytest.mark.exhaustive
def test_sft_takes_one_pass_a_step_and_ends_in_the_local_weights(world: World) -> None:
    turns = [("user", "How do I keep bread fresh?"), ("assistant", "In short: wrap it in cloth.")]
    for name, numbers in (("talks", range(12)), ("others", range(12, 16))):
        rows = [{"messages": [{"role": role, "content": f"{text} {each}"} for role, text in turns]} for each in numbers]
        (world.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    line = [
        "runner", "method=sft", "dataset=files", "dataset.train=talks.jsonl", "dataset.validation=others.jsonl",
        "sft.n_epochs=1", "sft.batch_size=2", "evaluation.samples=0", "backend.lora.rank=4", "tracking=none",
    ]  # fmt: skip
    world.command(*line, "backend=foundry_sessions", "name=remote", f"model.source={world.source}")
    local = locally(world, line)
    assert measured(world.of("remote")) == pytest.approx(known(measured(local)), rel=1e-4, abs=1e-5)
    demand_local_weights(world, world.of("remote"), local)
    service: Any = world.service
    assert (service.count("forward_backward"), service.count("optim_step")) == (6, 6)


def test_what_sessions_do_not_have_is_refused_in_the_plan_with_one_sentence(world: World) -> None:
    refused = {
        "backend.max_grad_norm=1": "backend.max_grad_norm: got 1, but the engine clips no gradients; set it to null",
        f"model.source=path:{world.model}": "use model.source=session:ORG/NAME, or run:RUN",
        "max_price=1": f"max_price: got 1, but {BASE} has no price",
    }
    for override, sentence in refused.items():
        source = [] if override.startswith("model.source") else [f"model.source={world.source}"]
        said = world.refusal(*world.line("backend=foundry_sessions", "mode=plan", override, *source))
        assert sentence in said, said
    assert world.service.requests == []


def test_the_plan_states_tokens_guarantee_and_what_differs_and_asks_nothing(world: World) -> None:
    line = world.line("backend=foundry_sessions", "mode=plan", f"model.source={world.source}")
    said = world.command(*line)
    assert f"not known: {BASE} is not in the table of 2026-10-07" in said
    assert "a probe shows whether an optimizer step was taken" in said
    assert "at most 2 optimizer steps are trained, and paid for, again" in said
    assert "the service clips none" in said
    prices = world.folder / "prices.yaml"
    prices.write_text(f"date: 2026-11\nsource: us\nmodels:\n  {BASE}: {{train: 500, prefill: 100, sample: 300}}\n")
    said = world.command(*line, f"backend.prices={prices}", "max_price=1")
    assert "$500 training, $100 prefill, $300 sampling a million (table of 2026-11" in said
    assert world.service.requests == []
