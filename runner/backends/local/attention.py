"""Attention that follows the segments of a pack: each token sees its own segment and its prompt, nothing else.

Registered with transformers under a name of its own, so that any model that asks its attention from there
can use it. The segments travel beside the tokens as an argument of the model's forward call. Work grows with
what is seen, not with the square of the pack; what rows do not share is never computed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from runner.backends.local.layout import Segment

NAME = "segments"


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    segments: Sequence[Segment], scaling: float | None = None, dropout: float = 0.0,
    sliding_window: int | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Return the attention's output (1, T, heads, size) for query (1, heads, T, size), as transformers asks for it.

    Key and value may have fewer heads, each shared by a group of the query's.
    """
    parts = [
        scaled_dot_product_attention(
            query[:, :, segment.start : segment.end],
            seen(key, segment),
            seen(value, segment),
            attn_mask=(mask := _mask(segment, sliding_window, query.device)),
            is_causal=mask is None,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        for segment in segments
    ]
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


def seen(states: Tensor, segment: Segment) -> Tensor:
    """Return the keys or values (1, heads, seen, size) that a segment's tokens may look at: its prompt's, its own."""
    if segment.prompt_end == segment.prompt:
        return states[:, :, segment.start : segment.end]
    if segment.prompt_end == segment.start:
        return states[:, :, segment.prompt : segment.end]
    own = states[:, :, segment.start : segment.end]
    return torch.cat((states[:, :, segment.prompt : segment.prompt_end], own), 2)


def _mask(segment: Segment, window: int | None, device: torch.device) -> Tensor | None:
    """Return (own, seen), True where a token may look; None where that is plain causal order."""
    prompt, own = segment.prompt_end - segment.prompt, segment.end - segment.start
    if not prompt and (window is None or own <= window):
        return None
    distance = torch.arange(prompt, prompt + own, device=device)[:, None] - torch.arange(prompt + own, device=device)
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)


AttentionInterface.register(NAME, attend)
