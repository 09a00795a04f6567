"""The layers of a model done in fewer passes over memory: the same values, written out with their gradients.

On a CPU a third of a step goes to small operations between the products, and autograd keeps each of their
results until the backward pass. Here a layer is one function that keeps what its gradient needs and no more.
A layer is replaced only if it gives the same values as the model's own on trial, so that a model with a twist
of its own keeps its own code. What is replaced, and how, is in patches.py.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import linear, silu

from runner.backends.local.scoring.autograd import Context

Grads = tuple[Tensor | None, ...]
Layer = tuple[Tensor, Tensor | None, Tensor, Tensor]
"""W (out, in), b (out,) or None, A (rank, in), B (out, rank)."""


class LoraContext(Context, Protocol):
    """The same for LoRA layers, which also keep their scale, alpha / rank."""

    scale: float


class LoraLinears(Function):
    """y = x Wᵀ + b + s (x Aᵀ) Bᵀ for layers that share their input, W and b frozen (arXiv:2106.09685, equation 3)."""

    @staticmethod
    def forward(ctx: LoraContext, x: Tensor, scale: float, *terms: Tensor | None) -> tuple[Tensor, ...]:
        """x (..., in) and the terms of each `Layer` in turn; each y is (..., out)."""
        flat = x.reshape(-1, x.shape[-1])
        layers = list(_by_layer(terms))
        lows = _low(flat, [a for _, _, a, _ in layers])
        # In this order, which `backward` takes apart: lows, four terms a layer, then the input or what it is
        # formed from.
        ctx.save_for_backward(*lows, *terms, *_kept(x, flat))
        ctx.scale = scale
        ys = [_high(flat, low, w, bias, b, scale) for low, (w, bias, _, b) in zip(lows, layers, strict=True)]
        return tuple(y.view(*x.shape[:-1], -1) for y in ys)

    @staticmethod
    def backward(ctx: LoraContext, *dys: Tensor) -> Grads:
        """Return the gradients of x and of each A and B."""
        saved, count = ctx.saved_tensors, len(dys)
        lows, layers, x = saved[:count], list(_by_layer(saved[count : 5 * count])), _input(*saved[5 * count :])
        flats = [dy.reshape(-1, dy.shape[-1]) for dy in dys]
        # The scale goes onto B (out, rank), the smallest of the factors.
        dlows = [dy @ (b.to(x.dtype) * ctx.scale) for dy, (_, _, _, b) in zip(flats, layers, strict=True)]
        dlow = torch.cat(dlows, 1)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dlow @ torch.cat([a for _, _, a, _ in layers]).to(x.dtype)
            for dy, (weight, _, _, _) in zip(flats, layers, strict=True):
                # Added where dx is: a product of its own would be one more tensor of the input's size.
                dx.addmm_(dy, weight)
            dx = dx.view(*dys[0].shape[:-1], -1)
        das = (dlow.T @ x).split([low.shape[1] for low in lows])
        grads: list[Tensor | None] = []
        for da, dy, low, (_, _, a, b) in zip(das, flats, lows, layers, strict=True):
            # W and b are frozen.
            grads += [None, None, da.to(a.dtype), (dy.T @ low).mul_(ctx.scale).to(b.dtype)]
        return dx, None, *grads


class LoraSwiGLU(Function):
    """y = down(silu(gate(x)) · up(x)) of three LoRA layers without bias (arXiv:2002.05202, equation 6).

    Kept are gate and up, and what the input comes from; the product of the two is formed again in the backward pass.
    """

    @staticmethod
    def forward(ctx: LoraContext, x: Tensor, scale: float, *terms: Tensor) -> Tensor:
        """x (..., size); W, A, B of gate, up and down in turn, shaped as in `LoraLinears`."""
        gate_w, gate_a, gate_b, up_w, up_a, up_b, down_w, down_a, down_b = terms
        flat = x.reshape(-1, x.shape[-1])
        gate_low, up_low = _low(flat, (gate_a, up_a))
        gate = _high(flat, gate_low, gate_w, None, gate_b, scale)
        up = _high(flat, up_low, up_w, None, up_b, scale)
        # Not kept: as large as gate or up, and cheap to form again.
        hidden = silu(gate).mul_(up)
        (down_low,) = _low(hidden, (down_a,))
        ctx.save_for_backward(gate, up, gate_low, up_low, down_low, *terms, *_kept(x, flat))
        ctx.scale = scale
        return _high(hidden, down_low, down_w, None, down_b, scale).view(x.shape)

    @staticmethod
    def backward(ctx: LoraContext, *dys: Tensor) -> Grads:
        """Return the gradients of x and of each A and B."""
        gate, up, gate_low, up_low, down_low, *rest = ctx.saved_tensors
        gate_w, gate_a, gate_b, up_w, up_a, up_b, down_w, down_a, down_b, *kept = rest
        x, dy, scale = _input(*kept), dys[0].reshape(-1, dys[0].shape[-1]), ctx.scale
        # From here on what is not needed any more is overwritten: `active` becomes dup, then `dhidden` the
        # gradient of silu's output. The order of these lines matters.
        active = silu(gate)
        ddown_low = dy @ (down_b.to(x.dtype) * scale)
        ddown_a, ddown_b = ddown_low.T @ (active * up), (dy.T @ down_low).mul_(scale)
        dhidden = (dy @ down_w).addmm_(ddown_low, down_a.to(x.dtype))
        dup = active.mul_(dhidden)
        # One pass, where silu's derivative written out takes several.
        dgate = torch.ops.aten.silu_backward(dhidden.mul_(up), gate)
        dlow = torch.cat((dgate @ (gate_b.to(x.dtype) * scale), dup @ (up_b.to(x.dtype) * scale)), 1)
        dx = (dgate @ gate_w).addmm_(dup, up_w).addmm_(dlow, torch.cat((gate_a, up_a)).to(x.dtype))
        dgate_a, dup_a = (dlow.T @ x).split((gate_a.shape[0], up_a.shape[0]))
        dgate_b, dup_b = (dgate.T @ gate_low).mul_(scale), (dup.T @ up_low).mul_(scale)
        grads = [None, dgate_a, dgate_b, None, dup_a, dup_b, None, ddown_a, ddown_b]
        return dx.view(dys[0].shape), None, *[g if g is None else g.to(gate_a.dtype) for g in grads]


class RMSNorm(Function):
    """y = w · x / √(mean(x²) + ε) (Zhang and Sennrich 2019, arXiv:1910.07467, equation 4)."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        """x (..., size), weight (size,); returns y and 1 / √(mean(x²) + ε) (..., 1)."""
        # A norm reads x once; x² as a tensor would be written and read again.
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        inverse = square.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        ctx.mark_non_differentiable(inverse)
        return _normed(x, weight, inverse), inverse

    @staticmethod
    def backward(ctx: Context, *dys: Tensor) -> Grads:
        """Return the gradients of x and, where it learns, of the weight."""
        dy = dys[0]
        x, weight, inverse = ctx.saved_tensors
        dweight = (dy * x).mul_(inverse).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        # With r = 1 / rms: dx = g r - x (g · x) r³ / size.
        g = dy * weight
        along = torch.linalg.vecdot(g, x).unsqueeze(-1).mul_(inverse.pow(3)).div_(x.shape[-1])
        return g.mul_(inverse).addcmul_(x, along, value=-1), dweight, None


class Rotate(Function):
    """y = x cos + turned(x) sin, where turned swaps the halves and negates the first (RoFormer, arXiv:2104.09864).

    Nothing of x is kept: the gradient is turned back by the same angles.
    """

    @staticmethod
    def forward(ctx: Context, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (1, heads, T, size); cos and sin (1, 1, T, size)."""
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, -1)

    @staticmethod
    def backward(ctx: Context, *dys: Tensor) -> Grads:
        """Return the gradient of x."""
        cos, sin = ctx.saved_tensors
        # dx₁ = dy₁ cos₁ + dy₂ sin₂ and dx₂ = dy₂ cos₂ - dy₁ sin₁: each half takes the other's sines.
        return _turned(dys[0], cos, torch.cat(sin.chunk(2, -1)[::-1], -1), 1), None, None


def _kept(x: Tensor, flat: Tensor) -> tuple[Tensor, ...]:
    """Return what is kept of a layer's input: what a norm formed it from (patches.py leaves word of it), or itself."""
    normed: tuple[Tensor, ...] | None = getattr(x, "normed_from", None)
    return normed or (flat,)


def _input(x: Tensor, *norm: Tensor) -> Tensor:
    """Return a layer's input (tokens, size) from what was kept; formed again, it is the same in every bit."""
    return _normed(x, *norm).flatten(0, -2) if norm else x


def _normed(x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    return (x * inverse).mul_(weight)


def _by_layer(terms: Sequence[Tensor | None]) -> Iterator[Layer]:
    for weight, bias, a, b in zip(terms[0::4], terms[1::4], terms[2::4], terms[3::4], strict=True):
        assert weight is not None and a is not None and b is not None, "only a bias may be missing"  # noqa: PT018
        yield weight, bias, a, b


def _low(x: Tensor, matrices: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return x Aᵀ for each A, in one product."""
    # x is read once for all of them. peft keeps A and B in float32 where the base is bfloat16; products are
    # in the base's type, gradients go back in the adapter's.
    low = x @ torch.cat(list(matrices)).to(x.dtype).T
    return tuple(low.split([a.shape[0] for a in matrices], 1))


def _high(x: Tensor, low: Tensor, weight: Tensor, bias: Tensor | None, b: Tensor, scale: float) -> Tensor:
    """Return x Wᵀ + bias + scale · low Bᵀ."""
    # addmm_ adds the adapter's part within the product: no tensor of the output's size between.
    return linear(x, weight, bias).addmm_(low, b.to(x.dtype).T, alpha=scale)


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    half = x.shape[-1] // 2
    y = x * cos
    y[..., :half].addcmul_(x[..., half:], sin[..., :half], value=sign)
    y[..., half:].addcmul_(x[..., :half], sin[..., half:], value=-sign)
    return y
