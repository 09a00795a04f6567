"""Each option of the model is at work: kinds of adapters, activations computed again, weights in few bits."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.backends.local import backend, model
from runner.backends.local.keys import Local, Lora, Runtime
from runner.backends.local.scoring.scorer import Scorer, exact
from runner.errors import ModelError, RequestError
from runner.models.source import ModelIdentity
from tests.backends.local import plain
from tests.backends.local.plain import AWKWARD, pair

pytestmark = pytest.mark.slow

SETTINGS = Local(dtype="float32", lora=Lora(rank=4), runtime=Runtime(device="cpu"))
TARGETS = {"gpt2": ["c_attn", "c_proj", "c_fc"]}


def ready(folder: Path, architecture: str = "llama", **more: Any) -> Any:
    """Return a model as a run has it, its adapter a little way from where it starts."""
    settings = replace(SETTINGS, **more)
    settings = replace(settings, lora=replace(settings.lora, targets=TARGETS.get(architecture, "all-linear")))
    made = model.prepare(model.start(folder, settings, torch.device("cpu")), settings, seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return made


@pytest.mark.parametrize(
    ("lora", "scaling", "learns"),
    [
        (Lora(rank=4, alpha=8), 2.0, {"lora_A", "lora_B"}),
        (Lora(rank=4, alpha=8, rslora=True), 4.0, {"lora_A", "lora_B"}),
        (Lora(rank=4, alpha=8, dora=True), 2.0, {"lora_A", "lora_B", "lora_magnitude_vector"}),
    ],
    ids=["lora", "rslora", "dora"],
)
def test_the_adapter_is_of_the_kind_that_is_asked_for(
    lora: Lora, scaling: float, learns: set[str], tiny_model: Path
) -> None:
    made = ready(tiny_model, lora=lora)
    layers = [module for module in made.modules() if hasattr(module, "lora_A")]
    assert {value for layer in layers for value in layer.scaling.values()} == {scaling}
    names = {name for name, weight in made.named_parameters() if weight.requires_grad}
    assert {part for name in names for part in name.split(".") if part.startswith("lora_")} == learns


@pytest.mark.parametrize("lora", [Lora(rank=4, dora=True), Lora(rank=4, rslora=True)], ids=["dora", "rslora"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_other_kinds_of_adapters_are_scored_exactly(lora: Lora, architecture: str, tiny_models: Any) -> None:
    folder = tiny_models(architecture)
    scorer, alone = Scorer(ready(folder, lora=lora)), ready(folder, lora=lora)
    assert exact(scorer, AWKWARD)
    weights = torch.linspace(-1, 1, 2 * len(AWKWARD)).view(-1, 2)
    (scorer(AWKWARD).logps * weights).sum().backward()
    (plain.all_logps(alone, AWKWARD) * weights).sum().backward()
    assert plain.apart(plain.gradient(scorer.model), plain.gradient(alone)) < 1e-4


def gradient(folder: Path, architecture: str, packed: bool, **more: Any) -> tuple[Tensor, Tensor]:
    made = ready(folder, architecture, **more)
    scorer = Scorer(made, packed)
    made.train()
    torch.manual_seed(5)
    found = scorer(AWKWARD).logps
    (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
    return found.detach(), plain.gradient(made)


AGAIN = Runtime(device="cpu", gradient_checkpointing=True)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "alone"])
@pytest.mark.parametrize(
    "more",
    [{}, {"lora": Lora(rank=4, dropout=0.3)}, {"lora": Lora(rank=4, dora=True)}, {"tuning": "full"}],
    ids=["lora", "dropout", "dora", "full"],
)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_activations_computed_again_give_the_same_gradient(
    architecture: str, more: dict[str, Any], packed: bool, tiny_models: Any
) -> None:
    folder = tiny_models(architecture)
    kept, again = (gradient(folder, architecture, packed, **more, runtime=each) for each in (SETTINGS.runtime, AGAIN))
    assert torch.equal(kept[0], again[0])
    torch.testing.assert_close(again[1], kept[1], rtol=1e-6, atol=1e-6)


def kept_for_the_backward_pass(folder: Path, runtime: Runtime) -> int:
    """Return the bytes that autograd keeps of a forward pass."""
    made = ready(folder, runtime=runtime)
    scorer, kept = Scorer(made), {}
    made.train()

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in made.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = scorer([pair(range(10, 200), range(10, 100), range(20, 100))]).logps.sum()
    loss.backward()
    return sum(size for place, size in kept.items() if place not in weights)


def test_activations_computed_again_are_not_kept(tiny_model: Path) -> None:
    assert kept_for_the_backward_pass(tiny_model, AGAIN) < kept_for_the_backward_pass(tiny_model, SETTINGS.runtime) / 2


@pytest.fixture(params=["nf4", "int8"])
def quantized(request: pytest.FixtureRequest, tiny_model: Path) -> Any:
    """Return a model with its frozen weights in few bits."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is an extra (pip install 'runner[qlora]')")
    return ready(tiny_model, quantization=request.param)


def test_weights_in_few_bits_take_less_room_and_say_nearly_the_same(quantized: Any, tiny_model: Path) -> None:
    whole = ready(tiny_model)
    inner = [module for module in quantized.modules() if hasattr(module, "base_layer")]
    assert {module.base_layer.weight.element_size() for module in inner} == {1}
    scorer = Scorer(quantized)
    found, expected = scorer(AWKWARD).logps.detach(), plain.all_logps(whole, AWKWARD).detach()
    assert exact(scorer, AWKWARD)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)
    assert not torch.equal(found, expected)


def test_an_adapter_on_weights_in_few_bits_learns_and_loads_on_whole_ones(
    quantized: Any, tiny_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    scorer = Scorer(quantized)
    quantized.train()
    before = {name: weight.detach().clone() for name, weight in quantized.named_parameters() if weight.requires_grad}
    adam = torch.optim.AdamW([each for each in quantized.parameters() if each.requires_grad], lr=1e-2)
    (-scorer(AWKWARD).logps.sum()).backward()
    adam.step()
    moved = {name: weight for name, weight in quantized.named_parameters() if weight.requires_grad}
    assert all(not torch.equal(weight, before[name]) for name, weight in moved.items())
    source = ModelIdentity(f"path:{tiny_model}", "a digest")
    model.save(quantized, tmp_path / "model", "an id", source)
    adapter = tmp_path / "model" / "adapter-1"
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == source.source
    loaded = PeftModel.from_pretrained(plain.load(tiny_model), str(adapter))
    stored = dict(loaded.named_parameters())
    assert all(torch.equal(stored[name], weight) for name, weight in moved.items())
    assert torch.isfinite(plain.all_logps(model.load(tmp_path / "model"), AWKWARD)).all()


def test_what_few_bits_need_is_reported_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"got int8, which needs packages .* pip install 'runner\[qlora\]'"):
        backend._refuse_weights(replace(SETTINGS, quantization="int8"))
    backend._refuse_weights(SETTINGS)


def test_a_model_that_sees_images_is_refused_with_where_it_is_trained(seeing_model: Path) -> None:
    with pytest.raises(ModelError, match=r"is a model that sees images, .*; choose one that it does, or train it by"):
        model.load(seeing_model)


def test_weights_that_are_damaged_are_named_in_a_sentence(tiny_model: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    model.save(ready(base), tmp_path / "model", "an id", ModelIdentity(f"path:{base}", "a digest"))
    (adapter,) = (tmp_path / "model").rglob("*.safetensors")
    for damaged, folder in ((adapter, tmp_path / "model"), (base / "model.safetensors", base)):
        damaged.write_bytes(damaged.read_bytes()[:500])
        with pytest.raises(ModelError, match=rf"model.source: {damaged.parent} cannot be loaded: .* header"):
            model.load(folder)


def test_adapters_do_not_merge_into_weights_in_few_bits(tiny_model: Path, tmp_path: Path) -> None:
    model.save(ready(tiny_model), tmp_path / "model", "an id", ModelIdentity(f"path:{tiny_model}", "a digest"))
    with pytest.raises(RequestError, match=r"backend.quantization: got nf4, but .*/model has adapters"):
        model.start(tmp_path / "model", replace(SETTINGS, quantization="nf4"), torch.device("cpu"))


def test_a_models_own_dropout_is_off_and_the_adapters_is_not(tiny_models: Any) -> None:
    folder = tiny_models("gpt2")
    loaded = model.load(folder)
    assert any(isinstance(each, torch.nn.Dropout) and each.p > 0 for each in loaded.modules()), "nothing to switch off"
    settings = replace(SETTINGS, lora=replace(SETTINGS.lora, dropout=0.25))
    made = model.prepare(loaded, settings, seed=3)
    rates = {each.p for each in made.modules() if isinstance(each, torch.nn.Dropout)}
    assert rates == {0.0, 0.25}
