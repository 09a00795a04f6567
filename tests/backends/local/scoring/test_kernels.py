"""Each function written out with its gradient is its formula."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from runner.backends.local.scoring.kernels import LoraLinears, LoraSwiGLU, RMSNorm, Rotate


def numbers(*shape: int, seed: int = 0, learns: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(learns)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 3), (5,), (2, 2)])
@pytest.mark.parametrize("outs", [(6,), (6, 2, 2)], ids=str)
def test_lora_layers_are_their_formula(bias: bool, shape: tuple[int, ...], outs: tuple[int, ...]) -> None:
    x = numbers(*shape, 4)
    terms: list[Tensor | None] = []
    expected = []
    for seed, out in enumerate(outs):
        weight, b0 = numbers(out, 4, seed=seed, learns=False), numbers(out, seed=seed, learns=False) if bias else None
        a, b = numbers(2 + seed, 4, seed=seed + 10), numbers(out, 2 + seed, seed=seed + 20)
        terms += [weight, b0, a, b]
        expected.append(x @ weight.T + 0.7 * (x @ a.T @ b.T) + (0 if b0 is None else b0))
    for found, value in zip(LoraLinears.apply(x, 0.7, *terms), expected, strict=True):
        torch.testing.assert_close(found, value)
    assert gradcheck(lambda *each: LoraLinears.apply(each[0], 0.7, *each[1:]), (x, *terms))
    fixed = x.detach()
    assert gradcheck(lambda *each: LoraLinears.apply(fixed, 0.7, *each), tuple(terms))


def test_a_gated_block_of_lora_layers_is_its_formula() -> None:
    x = numbers(1, 3, 4)
    shapes = {"gate": (6, 4), "up": (6, 4), "down": (4, 6)}
    terms = []
    for seed, (out, size) in enumerate(shapes.values()):
        terms += [numbers(out, size, seed=seed, learns=False), numbers(2, size, seed=seed), numbers(out, 2, seed=seed)]
    (gate_w, gate_a, gate_b, up_w, up_a, up_b, down_w, down_a, down_b) = terms
    gate = x @ (gate_w + 0.7 * gate_b @ gate_a).T
    up = x @ (up_w + 0.7 * up_b @ up_a).T
    expected = gate / (1 + (-gate).exp()) * up @ (down_w + 0.7 * down_b @ down_a).T
    torch.testing.assert_close(LoraSwiGLU.apply(x, 0.7, *terms), expected)
    assert gradcheck(lambda *each: LoraSwiGLU.apply(each[0], 0.7, *each[1:]), (x, *terms))


@pytest.mark.parametrize("learns", [True, False])
def test_rms_norm_is_its_formula(learns: bool) -> None:
    x, weight = numbers(1, 3, 5), numbers(5, seed=1, learns=learns)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight
    torch.testing.assert_close(RMSNorm.apply(x, weight, 1e-3)[0], expected)
    assert gradcheck(lambda x, w: RMSNorm.apply(x, w, 1e-3)[0], (x, weight))


def test_a_rotation_is_its_formula() -> None:
    x = numbers(1, 2, 3, 4)
    angles = numbers(1, 1, 3, 2, learns=False)
    cos, sin = (torch.cat((half, half), -1) for half in (angles.cos(), angles.sin()))
    first, second = x[..., :2], x[..., 2:]
    turned = (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin())
    torch.testing.assert_close(Rotate.apply(x, cos, sin), torch.cat(turned, -1))
    assert gradcheck(lambda x: Rotate.apply(x, cos, sin), (x,))


def test_a_rotation_may_have_different_halves() -> None:
    x, cos, sin = numbers(1, 2, 3, 4), *(numbers(1, 1, 3, 4, seed=seed, learns=False) for seed in (1, 2))
    turned = torch.cat((-x[..., 2:], x[..., :2]), -1)
    torch.testing.assert_close(Rotate.apply(x, cos, sin), x * cos + turned * sin)
    assert gradcheck(lambda x: Rotate.apply(x, cos, sin), (x,))
