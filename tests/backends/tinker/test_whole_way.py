"""`backend=tinker` from the request to the tuned model, by the real commands, next to the same request locally."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runner.record.journal import read_state
from tests import stores
from tests.backends.rehearsed import BASE, World, measured

pytestmark = pytest.mark.slow

METRICS = """
import json
from mlflow import MlflowClient
client = MlflowClient("sqlite:///mlflow.db")
found = {}
for run in client.search_runs([client.get_experiment_by_name("runner").experiment_id]):
    found[run.data.params["backend.name"]] = {
        f"{name} {each.step}": each.value
        for name in run.data.metrics if not name.startswith("system/")
        for each in client.get_metric_history(run.info.run_id, name)
    }
print(json.dumps(found))
"""


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "adapter-1" / "adapter_model.safetensors")


def test_the_same_request_gives_the_same_model_and_the_same_metrics_as_locally(world: World) -> None:
    stores.put_empty(world.folder)
    run = world.run("remote", "evaluation.keep=best", "tracking=mlflow")
    lines = world.line("backend=local", "name=local", f"model.source=path:{world.model}", "evaluation.keep=best")
    world.command(*lines, "tracking=mlflow", "backend.dtype=float32", "backend.runtime.threads=1")
    local = world.of("local")
    assert measured(run) == pytest.approx(measured(local), rel=1e-4, abs=1e-5)
    ours, theirs = adapter(run), adapter(local)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-5)
    assert any(tensor.abs().max() > 1e-4 for name, tensor in ours.items() if "lora_B" in name)
    assert json.loads((run / "samples.json").read_bytes()) == json.loads((local / "samples.json").read_bytes())
    tracked = json.loads(world.script(METRICS))
    assert tracked["tinker"] == pytest.approx(tracked["local"], rel=1e-4, abs=1e-5)
    assert len(tracked["tinker"]) > 30
    # The adapter is loaded by the local backend like any other, and both are compared row by row.
    said = world.command("runner.compare", run.name, local.name)
    assert "remote" in said
    assert read_state(run).results["save"]["sampler"].endswith("/sampler_weights/result-00000006")


def test_a_result_answers_is_evaluated_is_gone_on_from_and_is_removed(world: World) -> None:
    run, service = world.run("first"), world.service
    sampler = read_state(run).results["save"]["sampler"]
    said = world.command("runner.chat", run.name, typed="How do I keep bread fresh?\n")
    assert "base" in said
    assert "tuned" in said
    world.command("runner.evaluate", run.name, world.source, "evaluation.graders=[house_style]")
    # Other samples are asked for later, when the checkpoints of training have expired: nothing is trained again.
    for path in [each for each, kept in service.checkpoints.items() if kept.ttl_seconds]:
        del service.checkpoints[path]
    before = sum(service.done.values())
    world.run("first", "evaluation.samples=1")
    assert 0 < sum(service.done.values()) - before < 12
    again = world.run("second", f"model.source=run:{run.name}", "dpo.n_epochs=1")
    # It begins where the first one ended: the adapter continues, and the reference is that run's result.
    begun = {name: value for (step, name), value in measured(again).items() if step == 0}
    assert begun["eval/reward_margin"] == pytest.approx(0, abs=1e-6)
    ended = max(step for step, name in measured(run) if name == "eval/logps_chosen")
    assert begun["eval/logps_chosen"] == pytest.approx(measured(run)[ended, "eval/logps_chosen"], abs=1e-3)
    assert any((adapter(again)[name] != tensor).any() for name, tensor in adapter(run).items())
    done = [read_state(each).results["train"]["step"] for each in (run, again)]
    assert json.loads((again / "model" / "remote.json").read_bytes())["steps"] == sum(done), "the first run's included"
    world.command("runner.clean", "--yes", run.name)
    assert sampler not in service.checkpoints
    assert not [path for path in service.checkpoints if path.split("/")[2] == str(sampler).split("/")[2]]


def test_sft_takes_one_pass_a_step_and_ends_in_the_local_weights(world: World) -> None:
    turns = [("user", "How do I keep bread fresh?"), ("assistant", "In short: wrap it in cloth.")]
    for name, numbers in (("talks", range(8)), ("others", range(8, 12))):
        rows = [{"messages": [{"role": role, "content": f"{text} {each}"} for role, text in turns]} for each in numbers]
        (world.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    line = [
        "runner", "method=sft", "dataset=files", "dataset.train=talks.jsonl", "dataset.validation=others.jsonl",
        "sft.n_epochs=1", "sft.batch_size=2", "evaluation.samples=0", "backend.lora.rank=4", "tracking=none",
    ]  # fmt: skip
    world.command(*line, "backend=tinker", "name=remote", f"model.source={world.source}")
    local = [f"model.source=path:{world.model}", "backend.dtype=float32", "backend.runtime.threads=1"]
    world.command(*line, "backend=local", "name=local", *local)
    remote, local_run = world.of("remote"), world.of("local")
    known = {key: value for key, value in measured(local_run).items() if "token_accuracy" not in key[1]}
    assert measured(remote) == pytest.approx(known, rel=1e-4, abs=1e-5)
    for name, tensor in adapter(remote).items():
        torch.testing.assert_close(tensor, adapter(local_run)[name], rtol=0, atol=1e-5)
    done = Counter(what for (_, what), count in world.service.done.items() for _ in range(count))
    assert (done["forward_backward"], done["optim_step"]) == (4, 4)
    assert done["forward"] == 2 + 3  # on opening; at the start, half way, and the result's rows


@pytest.mark.exhaustive
def test_kto_with_its_divergence_ends_in_the_local_weights(world: World) -> None:
    line = [
        "runner", "method=kto", "dataset=files", "dataset.train=train.jsonl", "dataset.validation=held_out.jsonl",
        "kto.batch_size=8", "evaluation.samples=0", "backend.lora.rank=4", "backend.learning_rate=0.002",
        "tracking=none",
    ]  # fmt: skip
    world.command(*line, "backend=tinker", "name=remote", f"model.source={world.source}")
    local = [f"model.source=path:{world.model}", "backend.dtype=float32", "backend.runtime.threads=1"]
    world.command(*line, "backend=local", "name=local", *local)
    remote, local_run = measured(world.of("remote")), measured(world.of("local"))
    assert remote == pytest.approx(local_run, rel=1e-4, abs=1e-5)
    assert [step for (step, name) in remote if name == "train/kl"] == [1, 2, 3]  # 12 pairs are 24 rows
    for name, tensor in adapter(world.of("remote")).items():
        torch.testing.assert_close(tensor, adapter(world.of("local"))[name], rtol=0, atol=1e-5)
    done = Counter(what for (_, what), count in world.service.done.items() for _ in range(count))
    assert (done["forward_backward"], done["optim_step"]) == (3, 3)


def test_what_tinker_does_not_have_is_refused_in_the_plan_with_one_sentence(world: World) -> None:
    refused = {
        "backend.lora.rank=12": "backend.lora.rank: got 12; Tinker takes powers of two",
        "backend.lora.dora=true": "backend.lora.dora",
        f"model.source=path:{world.model}": "Tinker trains its own models only; use model.source=tinker:ORG/NAME",
        "max_price=1": f"max_price: got 1, but {BASE} has no price",
    }
    for override, sentence in refused.items():
        source = [] if override.startswith("model.source") else [f"model.source={world.source}"]
        said = world.refusal(*world.line("backend=tinker", "mode=plan", override, *source))
        assert sentence in said, said
    source = f"model.source={world.source}"
    said = world.command("runner", "backend=tinker", "method=reward", "mode=plan", source, code=2)
    assert "method: got reward, which trains a head of its own" in said
    assert world.service.requests == []


def test_the_plan_states_tokens_price_and_guarantee_and_asks_nothing(world: World) -> None:
    prices = world.folder / "prices.yaml"
    prices.write_text(f"date: 2026-11\nsource: us\nmodels:\n  {BASE}: {{train: 500, prefill: 100, sample: 300}}\n")
    line = world.line("backend=tinker", "mode=plan", f"model.source={world.source}", f"backend.prices={prices}")
    said = world.command(*line, "max_price=1")
    assert "by how `forward` is billed: $500 training, $100 prefill, $300 sampling a million (table of 2026-11" in said
    assert "at most 2 optimizer steps are trained, and paid for, again" in said
    assert "stops at a checkpoint before $1.00" in said
    assert world.service.requests == []
