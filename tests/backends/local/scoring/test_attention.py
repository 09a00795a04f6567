"""Attention by segments is dense attention under the mask that the segments describe, windows included."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from runner.backends.local.scoring.attention import attend
from runner.backends.local.scoring.packing import Segment, pack
from runner.backends.local.scoring.scorer import Scorer, exact
from runner.models.chat.tokenizer import TokenRow
from tests.backends.local import plain
from tests.backends.local.plain import AWKWARD, batches, pair


def dense(query: Tensor, key: Tensor, value: Tensor, segments: tuple[Segment, ...], window: int | None) -> Tensor:
    """Return softmax(q kᵀ / √size + mask) v written out, for query, key, value (heads, T, size)."""
    length = query.shape[1]
    mask = torch.full((length, length), float("-inf"), dtype=query.dtype)
    for segment in segments:
        before = list(range(segment.prompt, segment.prompt_end))
        for place in range(segment.start, segment.end):
            seen = [*before, *range(segment.start, place + 1)]
            mask[place, seen[-window:] if window else seen] = 0.0
    groups = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(groups, 0), value.repeat_interleave(groups, 0)
    weights = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5 + mask).softmax(-1)
    return weights @ value


@pytest.mark.parametrize("window", [None, 1, 3, 50])
@settings(max_examples=15, deadline=None)
@given(rows=batches() | batches(1))
def test_values_and_gradients_are_those_of_dense_attention(window: int | None, rows: list[TokenRow]) -> None:
    laid = pack(rows)
    length = laid.ids.shape[1]
    generator = torch.Generator().manual_seed(length)
    states = [
        torch.randn(1, heads, length, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    ours, _ = attend(None, *states, None, segments=laid.segments, sliding_window=window)
    theirs = dense(*(each[0] for each in states), laid.segments, window).transpose(0, 1)[None]
    torch.testing.assert_close(ours, theirs)
    above = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad((ours * above).sum(), states)
    for one, other in zip(gradients, torch.autograd.grad((theirs * above).sum(), states), strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture(scope="module")
def windowed(tiny_models: Any) -> tuple[Any, Any]:
    """A Mistral model that sees six tokens back, plain and packed."""
    folder = tiny_models("mistral")
    return plain.lively(folder, "eager"), Scorer(plain.lively(folder))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=batches())
def test_a_sliding_window_is_counted_in_a_rows_own_tokens(windowed: tuple[Any, Any], rows: list[TokenRow]) -> None:
    model, scorer = windowed
    with torch.no_grad():
        torch.testing.assert_close(scorer(rows).logps, plain.all_logps(model, rows), rtol=1e-4, atol=1e-4)


def test_a_sliding_window_model_is_exact_and_its_window_is_at_work(windowed: tuple[Any, Any]) -> None:
    model, scorer = windowed
    assert exact(scorer, AWKWARD)
    row = pair(range(10, 40), [5, 6], [7])
    with torch.no_grad():
        before = plain.logps(model, row)
        model.config.sliding_window = None
        for layer in model.model.layers:
            layer.self_attn.sliding_window = None
        assert not torch.allclose(before, plain.logps(model, row))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize(
    ("change", "packed"),
    [
        ({}, False),
        ({"final_logit_softcapping": None}, False),
        ({"attn_logit_softcapping": None}, True),
        ({"attn_logit_softcapping": 1e6}, False),  # too weak to show
    ],
    ids=["both", "attention", "logits", "weak"],
)
def test_squeezed_logits_keep_their_own_way(
    change: dict[str, Any], packed: bool, frozen: bool, tiny_models: Any
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tiny_models("gemma2")
    config = AutoConfig.from_pretrained(folder)
    for key, value in change.items():
        setattr(config, key, value)
    model = AutoModelForCausalLM.from_pretrained(folder, config=config).eval().requires_grad_(not frozen)
    expected = plain.all_logps(model, AWKWARD).detach()
    scorer = Scorer(model)
    assert exact(scorer, AWKWARD[:1]) == packed
    scorer = scorer if packed else scorer.unpacked()
    torch.testing.assert_close(scorer(AWKWARD).logps.detach(), expected, rtol=1e-4, atol=1e-4)
