"""Each fused layer is the layer it stands for: its formula, its gradients, and no other layer's."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from runner.backends.local import fused
from runner.backends.local.fused import Gate, LoraLinear, RMSNorm
from tests.backends.local import plain


def numbers(*shape: int, seed: int = 0, learns: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(learns)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 3), (5,), (2, 2)])
def test_lora_is_its_formula(bias: bool, shape: tuple[int, ...]) -> None:
    x, weight, b0 = numbers(*shape, 4), numbers(6, 4, learns=False), numbers(6, learns=False) if bias else None
    a, b = numbers(2, 4, seed=1), numbers(6, 2, seed=2)
    expected = x @ weight.T + 0.7 * (x @ a.T @ b.T) + (0 if b0 is None else b0)
    torch.testing.assert_close(LoraLinear.apply(x, weight, b0, a, b, 0.7), expected)
    assert gradcheck(lambda x, a, b: LoraLinear.apply(x, weight, b0, a, b, 0.7), (x, a, b))
    fixed = x.detach()
    assert gradcheck(lambda a, b: LoraLinear.apply(fixed, weight, b0, a, b, 0.7), (a, b))


@pytest.mark.parametrize("learns", [True, False])
def test_rms_norm_is_its_formula(learns: bool) -> None:
    x, weight = numbers(1, 3, 5), numbers(5, seed=1, learns=learns)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight
    torch.testing.assert_close(RMSNorm.apply(x, weight, 1e-3), expected)
    assert gradcheck(lambda x, w: RMSNorm.apply(x, w, 1e-3), (x, weight))


def test_the_gate_is_its_formula() -> None:
    gate, up = numbers(1, 3, 5), numbers(1, 3, 5, seed=1)
    torch.testing.assert_close(Gate.apply(gate, up), gate / (1 + (-gate).exp()) * up)
    assert gradcheck(Gate.apply, (gate, up))


def adopted(model: Any) -> list[str]:
    """Return the kinds of modules that are replaced."""
    return sorted({type(module).__name__ for module, _ in fused.found(model)})


def test_layers_of_llama_and_qwen2_are_found(tiny_models: Any) -> None:
    assert adopted(plain.adapted(plain.load(tiny_models("llama")))) == ["LlamaMLP", "LlamaRMSNorm", "Linear"]
    assert adopted(plain.adapted(plain.load(tiny_models("qwen2")))) == ["Linear", "Qwen2MLP", "Qwen2RMSNorm"]
    assert adopted(plain.adapted(plain.load(tiny_models("gpt2")), ["c_attn", "c_proj", "c_fc"])) == []


def test_all_layers_of_a_kind_are_found_and_given_back(tiny_models: Any) -> None:
    model = plain.adapted(plain.load(tiny_models("llama")))
    layers = fused.found(model)
    assert len(layers) == 2 * (7 + 2 + 1) + 1  # two blocks of seven products, two norms and one gate; the last norm
    fused.adopt(layers)
    assert all("forward" in vars(module) for module, _ in layers)
    fused.release(layers)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_values_and_gradients_are_those_of_the_modules_own(architecture: str, tiny_models: Any) -> None:
    model = plain.disturbed(plain.adapted(plain.load(tiny_models(architecture))))
    for module, forward in fused.found(model):
        first = getattr(module, "gate_proj", module)
        width = getattr(first, "in_features", next(module.parameters()).shape[-1])
        x = torch.randn(1, 7, width, generator=torch.Generator().manual_seed(width), requires_grad=True)
        ours, theirs = forward(x), module(x)
        torch.testing.assert_close(ours, theirs)
        above = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
        learns = [x, *(each for each in module.parameters() if each.requires_grad)]
        pairs = zip(
            torch.autograd.grad((ours * above).sum(), learns),
            torch.autograd.grad((theirs * above).sum(), learns),
            strict=True,
        )
        for one, other in pairs:
            assert plain.apart(one, other) < 1e-5, module


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
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 8)
        self.act_fn = act

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return out


def test_a_layer_with_a_twist_keeps_its_own_code() -> None:
    assert fused.found(ShiftedRMSNorm()) == []
    assert fused.found(Gated(nn.GELU())) == []
    assert len(fused.found(Gated(nn.SiLU()))) == 1


@pytest.mark.parametrize(
    "twist", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}], ids=lambda twist: next(iter(twist))
)
def test_an_adapter_with_a_twist_keeps_its_own_code(twist: dict[str, Any], tiny_models: Any) -> None:
    assert "Linear" not in adopted(plain.adapted(plain.load(tiny_models("qwen2")), **twist))


def test_rank_stabilised_scale_is_taken_over(tiny_models: Any) -> None:
    model = plain.adapted(plain.load(tiny_models("qwen2")), use_rslora=True)
    assert "Linear" in adopted(model)


def test_with_the_adapter_off_the_layer_is_its_base(tiny_models: Any) -> None:
    model = plain.adapted(plain.load(tiny_models("qwen2")))
    module, forward = next(each for each in fused.found(model) if hasattr(each[0], "base_layer"))
    x = torch.randn(1, 3, module.base_layer.in_features)
    with model.disable_adapter():
        assert torch.equal(forward(x), module.base_layer(x))
    assert not torch.equal(forward(x), module.base_layer(x))
