"""Attention that follows the segments of a pack: each token sees its own segment and its prompt, nothing else.

Registered with transformers under a name of its own, so that any model that asks its attention from there
can use it. The segments are passed with the tokens as an argument of the model's forward call. The work
grows with what is seen, not with the square of the pack; what rows do not share is never computed.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from runner.backends.local.scoring.autograd import Context
from runner.backends.local.scoring.packing import Segment

NAME = "segments"


def attend(  # noqa: PLR0913 (transformers' own order of arguments)
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    segments: Sequence[Segment], scaling: float | None = None, dropout: float = 0.0,
    sliding_window: int | None = None, **_: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """Return the attention's output (1, T, heads, size) for query (1, heads, T, size), as transformers asks for it.

    Key and value may have fewer heads, each shared by a group of the query's.
    """
    masks = _masks(tuple(segments), sliding_window, query.dtype, query.device)
    # The CPU's flash kernel has no dropout; the usual call below keeps autograd's way.
    if query.device.type == "cpu" and not dropout:
        result: Tensor = OnCPU.apply(query, key, value, segments, masks, scaling)  # type: ignore[no-untyped-call]
        return result, None
    parts = [
        scaled_dot_product_attention(
            query[:, :, segment.start : segment.end],
            seen(key, segment),
            seen(value, segment),
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        for segment, mask in zip(segments, masks, strict=True)
    ]
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


class AttentionContext(Context, Protocol):
    """The same for attention, with the segments, their masks and the scale of the scores."""

    how: tuple[Sequence[Segment], Sequence[Tensor | None], float | None]


class OnCPU(Function):
    """softmax(q kᵀ · scale) v, segment by segment, by the CPU's own kernels.

    Written out because autograd would fill a whole pack with zeros for the gradient of each segment's slice, and
    keep keys and values once more for each head of a group.
    """

    @staticmethod
    def forward(
        ctx: AttentionContext, q: Tensor, k: Tensor, v: Tensor,
        segments: Sequence[Segment], masks: Sequence[Tensor | None], scale: float | None,
    ) -> Tensor:  # fmt: skip
        """q (1, heads, T, size), k and v (1, groups, T, size), a mask or None for each segment."""
        # T before heads, as transformers wants it back: the kernel writes into a view of it, and nothing is
        # transposed afterwards.
        out: Tensor = q.new_empty(1, q.shape[2], q.shape[1], q.shape[3])
        q_by_group, out_by_group = _by_group(q, k), _by_group(out.transpose(1, 2), k)
        sums = []
        for segment, mask in zip(segments, masks, strict=True):
            own = slice(segment.start, segment.end)
            keys, values = _for_group(seen(k, segment), q, k), _for_group(seen(v, segment), q, k)
            out_by_group[:, :, own], log_sum = _attend(
                q_by_group[:, :, own], keys, values, 0.0, mask is None, attn_mask=mask, scale=scale
            )
            # All that the backward pass needs of the scores: it forms them again (FlashAttention, arXiv:2205.14135).
            sums.append(log_sum)
        ctx.save_for_backward(q, k, v, out, *sums)
        ctx.how = segments, masks, scale
        return out

    @staticmethod
    def backward(ctx: AttentionContext, *douts: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k and v."""
        q, k, v, out, *sums = ctx.saved_tensors
        segments, masks, scale = ctx.how
        # A query lies in one segment, so that dq is written once; a prompt's keys are seen by each of its
        # answers, and their gradients add up.
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        of_query = [_by_group(each, k) for each in (douts[0].transpose(1, 2), q, out.transpose(1, 2), dq)]
        for segment, mask, log_sum in zip(segments, masks, sums, strict=True):
            dout_own, q_own, out_own, dq_own = (each[:, :, segment.start : segment.end] for each in of_query)
            keys, values = _for_group(seen(k, segment), q, k), _for_group(seen(v, segment), q, k)
            part, dkeys, dvalues = _attend_backward(
                dout_own, q_own, keys, values, out_own, log_sum, 0.0, mask is None, attn_mask=mask, scale=scale
            )
            dq_own.copy_(part)
            # sum(1): the heads of a group share keys and values.
            for whole, dseen in ((dk, dkeys.sum(1)), (dv, dvalues.sum(1))):
                prompt = segment.prompt_end - segment.prompt
                whole[0, :, segment.prompt : segment.prompt_end] += dseen[:, :prompt]
                whole[0, :, segment.start : segment.end] += dseen[:, prompt:]
        return dq, dk, dv, None, None, None


# Not public, but the only way to the kernel's log-sums; that both still give autograd's values is held by
# tests/backends/local/scoring/test_attention.py.
_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _by_group(states: Tensor, key: Tensor) -> Tensor:
    """Return (groups, heads a group, T, size) of (1, heads, T, size), without a copy."""
    grouped: Tensor = states[0].unflatten(0, (key.shape[1], -1))
    return grouped


def _for_group(states: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Return keys or values (1, groups, T, size) as (groups, heads a group, T, size), without a copy."""
    return states[0].unsqueeze(1).expand(-1, query.shape[1] // key.shape[1], -1, -1)


def seen(states: Tensor, segment: Segment) -> Tensor:
    """Return the keys or values (1, heads, seen, size) that a segment's tokens may look at: its prompt's, its own."""
    if segment.prompt_end == segment.prompt:
        return states[:, :, segment.start : segment.end]
    # The first answer lies right behind its prompt: one slice, where the others need a copy.
    if segment.prompt_end == segment.start:
        return states[:, :, segment.prompt : segment.end]
    own = states[:, :, segment.start : segment.end]
    return torch.cat((states[:, :, segment.prompt : segment.prompt_end], own), 2)


@lru_cache(maxsize=8)
def _masks(
    segments: tuple[Segment, ...], window: int | None, dtype: torch.dtype, device: torch.device
) -> list[Tensor | None]:
    """Return each segment's mask, one for all layers; a few are held, for lanes and for layers of two kinds.

    They are kept for the backward pass, so that a mask for each layer would be paid for in memory, too.
    """
    like = torch.empty(0, dtype=dtype, device=device)
    return [_mask(segment, window, like) for segment in segments]


def _mask(segment: Segment, window: int | None, like: Tensor) -> Tensor | None:
    """Return (own, seen): 0 where a token may look and -∞ elsewhere; None where that is plain causal order."""
    prompt, own = segment.prompt_end - segment.prompt, segment.end - segment.start
    if not prompt and (window is None or own <= window):
        return None
    place = torch.arange(prompt + own, device=like.device)
    # In positions, as an answer continues where its prompt ends, wherever in the pack it lies.
    back = place[prompt:, None] - place
    visible = back >= 0 if window is None else (back >= 0) & (back < window)
    mask: Tensor = like.new_zeros(own, prompt + own).masked_fill_(~visible, -torch.inf)
    return mask


# At import: `set_attn_implementation` refuses names that are not registered.
AttentionInterface.register(NAME, attend)
