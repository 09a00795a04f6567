"""What is done by our own functions is what they stand for, with its gradients; no other part is."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.backends.local.scoring import patches
from tests.backends.local import plain


def adopted(model: Any) -> dict[str, int]:
    """Return how many parts of each kind are replaced."""
    found: dict[str, int] = {}
    for patch in patches.found(model):
        kind = type(patch.owner).__name__ if patch.name == "forward" else patch.name
        found[kind] = found.get(kind, 0) + 1
    return found


def test_parts_of_llama_and_qwen2_are_found(tiny_models: Any) -> None:
    rotation = {"apply_rotary_pos_emb": 1}  # for all layers
    assert adopted(plain.adapted(plain.load(tiny_models("llama")))) == rotation | {
        "LlamaMLP": 2, "LlamaRMSNorm": 5, "Linear": 2 * 7,
    }  # fmt: skip
    assert adopted(plain.adapted(plain.load(tiny_models("qwen2")))) == rotation | {
        "Qwen2MLP": 2, "Qwen2RMSNorm": 5, "Linear": 2 * 7,
    }  # fmt: skip


def test_parts_without_an_adapter_keep_their_own_code(tiny_models: Any) -> None:
    assert adopted(plain.load(tiny_models("llama"))) == {"LlamaRMSNorm": 5, "apply_rotary_pos_emb": 1}
    assert adopted(plain.adapted(plain.load(tiny_models("gpt2")), ["c_attn", "c_proj", "c_fc"])) == {}


def test_replaced_layers_are_restored_to_the_models_own(tiny_models: Any) -> None:
    model = plain.adapted(plain.load(tiny_models("llama")))
    before = plain.FILES[0].apply_rotary_pos_emb
    applicable = patches.found(model)
    for patch in applicable:
        patch.put()
    assert all(vars(patch.owner)[patch.name] is patch.ours for patch in applicable)
    for patch in reversed(applicable):
        patch.undo()
    assert not any("forward" in vars(module) for module in model.modules())
    assert plain.FILES[0].apply_rotary_pos_emb is before


def width_of(module: Any) -> int:
    first = getattr(module, "gate_proj", module)
    return int(getattr(first, "in_features", next(module.parameters()).shape[-1]))


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_values_and_gradients_are_those_of_the_modules_own(architecture: str, tiny_models: Any) -> None:
    model = plain.adapted(plain.lively(tiny_models(architecture)))
    given: dict[int, Tensor] = {}
    for patch in patches.found(model):
        if patch.name != "forward":
            continue
        module, width = patch.owner, width_of(patch.owner)
        generator = torch.Generator().manual_seed(width)
        x = given.setdefault(width, torch.randn(1, 7, width, generator=generator, requires_grad=True))
        ours, theirs = patch.ours(x), module(x)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        above = torch.randn(theirs.shape, generator=generator)
        learns = [x, *(each for each in module.parameters() if each.requires_grad)]
        one = torch.autograd.grad((ours * above).sum(), learns, retain_graph=True)
        other = torch.autograd.grad((theirs * above).sum(), learns)
        for mine, its in zip(one, other, strict=True):
            assert plain.apart(mine, its) < 1e-5, module


def test_layers_asked_together_are_computed_again_for_another_input(tiny_models: Any) -> None:
    model = plain.adapted(plain.lively(tiny_models("llama")))
    attention = model.get_base_model().model.layers[0].self_attn
    names = ("q_proj", "k_proj", "v_proj")
    own = {name: getattr(attention, name).forward for name in names}
    applicable = patches.found(model)
    x, y = torch.randn(1, 3, 48), torch.randn(1, 3, 48)
    expected = {(name, at): own[name](each) for name in names for at, each in enumerate((x, y))}
    for patch in applicable:
        patch.put()
    # In turn, out of turn, twice, and given up half way.
    asked = ["q_proj 0", "k_proj 0", "v_proj 0", "v_proj 1", "q_proj 1", "q_proj 1", "k_proj 0", "q_proj 1", "k_proj 1"]
    for each in asked:
        name, at = each.split()
        found = getattr(attention, name)((x, y)[int(at)])
        torch.testing.assert_close(found, expected[name, int(at)], rtol=1e-4, atol=1e-5)
    for patch in reversed(applicable):
        patch.undo()


@pytest.mark.parametrize(("kernel", "part"), [("LoraLinears", "Linear"), ("LoraSwiGLU", "LlamaMLP")])
def test_a_wrong_adapter_term_is_seen_although_the_adapter_is_still_zero(
    kernel: str, part: str, tiny_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = plain.adapted(plain.load(tiny_models("llama")))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)  # as an adapter begins
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert part in adopted(model)
    right = getattr(patches, kernel)
    twice = SimpleNamespace(apply=lambda x, scale, *terms: right.apply(x, 2 * scale, *terms))
    monkeypatch.setattr(patches, kernel, twice)
    assert part not in adopted(model)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_in_bfloat16_the_same_parts_are_found(tiny_models: Any) -> None:
    model = plain.adapted(plain.load(tiny_models("llama")))
    assert adopted(model.to(torch.bfloat16)) == adopted(plain.adapted(plain.load(tiny_models("llama"))))


class ShiftedRMSNorm(nn.Module):
    """A norm with 1 + weight, as Gemma has it."""

    def __init__(self) -> None:
        super().__init__()
        self.eps, self.weight = 1e-6, nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


class Gated(nn.Module):
    """A gated block with an activation of its own."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(8, 6, bias=False), nn.Linear(8, 6, bias=False)
        self.down_proj, self.act_fn = nn.Linear(6, 8, bias=False), act

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """A model of one gated block with an adapter."""

    def __init__(self, act: nn.Module) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        super().__init__()
        self.mlp = Gated(act)
        inject_adapter_in_model(LoraConfig(r=2, target_modules=["gate_proj", "up_proj", "down_proj"]), self)


def test_a_part_with_a_twist_keeps_its_own_code() -> None:
    assert adopted(ShiftedRMSNorm()) == {}
    assert adopted(Block(nn.GELU())) == {"Linear": 3}
    assert adopted(Block(nn.SiLU())) == {"Gated": 1, "Linear": 3}


@pytest.mark.parametrize(
    "twist", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}], ids=lambda twist: next(iter(twist))
)
def test_an_adapter_with_a_twist_keeps_its_own_code(twist: dict[str, Any], tiny_models: Any) -> None:
    assert "Linear" not in adopted(plain.adapted(plain.load(tiny_models("qwen2")), **twist))


def test_with_the_adapter_off_a_part_is_its_base(tiny_models: Any) -> None:
    model = plain.adapted(plain.load(tiny_models("qwen2")))
    applicable = [each for each in patches.found(model) if hasattr(each.owner, "base_layer")]
    for patch in applicable:
        x = torch.randn(1, 3, patch.owner.base_layer.in_features)
        assert not torch.equal(patch.ours(x), patch.owner.base_layer(x))
        with model.disable_adapter():
            assert torch.equal(patch.ours(x), patch.owner.base_layer(x))
