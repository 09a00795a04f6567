"""The layers of a model done in fewer passes over memory: the same values, written out with their gradients.

On a CPU a third of a step goes to small operations between the products, and autograd keeps each of their
results until the backward pass. Here a layer is one function that keeps what its gradient needs and no more.
A layer is replaced only if it gives the same values as the model's own on trial (`found`), so that a model
with a twist of its own keeps its own code.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear, silu

Grads = tuple[Tensor | None, ...]


class LoraLinear(Function):
    """y = x Wᵀ + b + scale · (x Aᵀ) Bᵀ, with W and b frozen (Hu et al. 2021, arXiv:2106.09685, equation 3)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """x (..., in), weight (out, in), bias (out,), a (rank, in), b (out, rank); returns (..., out)."""
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.to(x.dtype).T
        y = linear(flat, weight, bias).addmm_(low, b.to(x.dtype).T, alpha=scale)
        ctx.save_for_backward(flat, low, weight, a, b)
        ctx.scale = scale
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Grads:
        """Return the gradients of x, a and b."""
        x, low, weight, a, b = ctx.saved_tensors
        flat = dy.reshape(-1, dy.shape[-1])
        dlow = flat @ (b.to(x.dtype) * ctx.scale)
        dx = (flat @ weight).addmm_(dlow, a.to(x.dtype)) if ctx.needs_input_grad[0] else None
        da = (dlow.T @ x).to(a.dtype)
        db = (flat.T @ low).mul_(ctx.scale).to(b.dtype)
        return None if dx is None else dx.view(*dy.shape[:-1], -1), None, None, da, db, None


class RMSNorm(Function):
    """y = w · x / √(mean(x²) + ε) (Zhang and Sennrich 2019, arXiv:1910.07467, equation 4)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """x (..., size), weight (size,)."""
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        inverse = square.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        y: Tensor = (x * inverse).mul_(weight)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Grads:
        """Return the gradients of x and, where it learns, of the weight."""
        x, weight, inverse = ctx.saved_tensors
        dweight = (dy * x).mul_(inverse).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        g = dy * weight
        along = torch.linalg.vecdot(g, x).unsqueeze(-1).mul_(inverse.pow(3)).div_(x.shape[-1])
        return g.mul_(inverse).addcmul_(x, along, value=-1), dweight, None


class Gate(Function):
    """y = silu(gate) · up, keeping the two inputs only (Shazeer 2020, arXiv:2002.05202, SwiGLU)."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """Both (..., size)."""
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Grads:
        """Return the gradients of both."""
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(dy * up, gate), silu(gate).mul_(dy)


def lora_linear(module: Any) -> Callable[[Tensor], Tensor] | None:
    """Return the forward of a plain LoRA layer without dropout; None for any other module."""
    names = list(getattr(module, "lora_A", {}))
    base = getattr(module, "base_layer", None)
    if type(base) is not nn.Linear or len(names) != 1 or module.lora_variant:
        return None
    (name,) = names
    a, b, scale = module.lora_A[name], module.lora_B[name], module.scaling[name]
    if type(module.lora_dropout[name]) is not nn.Identity or a.bias is not None or b.bias is not None:
        return None

    def forward(x: Tensor) -> Tensor:
        if module.disable_adapters:
            return linear(x, base.weight, base.bias)
        result: Tensor = LoraLinear.apply(x, base.weight, base.bias, a.weight, b.weight, scale)  # type: ignore[no-untyped-call]
        return result

    return forward


def rms_norm(module: Any) -> Callable[[Tensor], Tensor] | None:
    """Return the forward of an RMS norm; None for any other module."""
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or epsilon is None:
        return None
    return lambda x: RMSNorm.apply(x, module.weight, epsilon)  # type: ignore[no-untyped-call]


def gated(module: Any) -> Callable[[Tensor], Tensor] | None:
    """Return the forward of a SwiGLU block; None for any other module."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")]
    if not all(isinstance(part, nn.Module) for part in parts):
        return None
    return lambda x: module.down_proj(Gate.apply(module.gate_proj(x), module.up_proj(x)))  # type: ignore[no-untyped-call]


KINDS = (lora_linear, rms_norm, gated)

Layers = list[tuple[Any, Callable[[Tensor], Tensor]]]


def found(model: Any) -> Layers:
    """Return the layers whose fused forward shows the same values on trial, each with that forward."""
    pairs = [(module, kind(module)) for kind in KINDS for module in model.modules()]
    return [(module, fused) for module, fused in pairs if fused is not None and _same(module, fused)]


def adopt(layers: Layers) -> None:
    """Give the layers their fused forward."""
    for module, forward in layers:
        module.forward = forward


def release(layers: Layers) -> None:
    """Give the layers their own forward back."""
    for module, _ in layers:
        del module.forward


@torch.no_grad()
def _same(module: Any, fused: Callable[[Tensor], Tensor]) -> bool:
    """Say whether both give the same values for a few random tokens."""
    weight = next(module.parameters())
    first = getattr(module, "gate_proj", module)
    width = getattr(first, "in_features", weight.shape[-1])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, width, generator=generator).to(weight.device, weight.dtype)
    tolerance = 1e-5 if weight.dtype == torch.float32 else 2e-2
    return torch.allclose(module(x), fused(x), rtol=tolerance, atol=tolerance)
