"""What a model thinks of a row: the log-probabilities of its answers' tokens.

Only the positions that predict an answer token are projected onto the vocabulary: on a small model the
projection is the dearest single product, and most positions belong to the prompt.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from runner.backends.local.layout import Laid, plain, shared
from runner.methods import Scores
from runner.tokens import TokenRow

Layout = Callable[[TokenRow], list[Laid]]


def token_logps(model: Any, laid: Laid) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each scored token (A,) float32, and whether it is the likeliest (A,)."""
    device = model.device
    logits = model(
        input_ids=laid.ids.to(device),
        position_ids=laid.positions.to(device),
        attention_mask=None if laid.mask is None else laid.mask.to(device),
        use_cache=False,
        logits_to_keep=laid.predict.to(device),
    ).logits[0]
    labels = laid.labels.to(device)
    logps = -cross_entropy(logits.float(), labels, reduction="none")
    return logps, logits.detach().argmax(-1) == labels


def scores(model: Any, row: TokenRow, layout: Layout = shared) -> Scores:
    """Return the summed log-probability of each answer of a row (equation 7's log policy(y | x))."""
    logps, correct, tokens = (torch.zeros(len(row.answers), device=model.device) for _ in range(3))
    for laid in layout(row):
        values, hits = token_logps(model, laid)
        answer = laid.answer.to(model.device)
        logps = logps.index_add(0, answer, values)
        correct = correct.index_add(0, answer, hits.float())
        tokens = tokens.index_add(0, answer, torch.ones_like(values))
    return Scores(logps, tokens, correct)


@torch.no_grad()
def exact(model: Any, row: TokenRow) -> bool:
    """Say whether sharing the prompt gives this model the same log-probabilities as the plain layout."""
    one, other = scores(model, row, shared).logps, scores(model, row, plain).logps
    tolerance = 1e-4 if getattr(model, "dtype", torch.float32) == torch.float32 else 2e-2
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance)
