"""Any of our losses through an engine that knows one: the cross entropy with a weight for each token.

With C the loss of a batch as a function of its tokens' log-probabilities ℓ: `forward` gives ℓ, autograd on this side
gives w = -∂C/∂ℓ, and `forward_backward` with these weights adds -Σ w ∂ℓ/∂θ = ∂C/∂θ, exactly, as its loss is a plain sum
and the weights are constants to it. It costs a forward pass more than a loss in one pass: half as much again.
"""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from runner.methods import Scores, TokenScores
from runner.models.chat.tokenizer import TokenRow
from runner.training.engine import Engine, Pending, TokenLogps
from runner.training.examples import Example, Examples, num_learned
from runner.training.loss import Loss, Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

ROWS = 64
"""Rows that are evaluated at a time, and per event of progress."""


class ByPrimitives(Engine):
    """An engine that has `forward` and the cross entropy of `forward_backward`, and so any of our losses."""

    def forward_backward_custom(self, examples: Sequence[Example], loss: Loss) -> Pending:
        """Add the gradient of the weighted mean of rows' losses by two passes; return that mean and the metrics'."""
        return forward_backward_custom(self, examples, loss)

    def evaluate(self, examples: Examples, loss: Loss) -> Generator[int, None, Rows]:
        """Return each row's loss, metrics and weight by `forward`; yield how many rows are done."""
        rows: Rows = []
        while len(rows) < len(examples):
            part = [examples[number] for number in range(len(rows), min(len(rows) + ROWS, len(examples)))]
            tokens = [example.tokens for example in part]
            rows += loss.rows(part, scores(tokens, self.forward(tokens), loss.by_token))
            yield len(rows)
        return rows


def forward_backward_custom(engine: Engine, examples: Sequence[Example], loss: Loss) -> Pending:
    """Add the gradient of the weighted mean of rows' losses to an engine's, by its primitives alone.

    Returns the mean and the metrics' means: those of the log-probabilities of the first pass, since what a service says
    of the second one's loss is that of the surrogate.
    """
    rows = [example.tokens for example in examples]
    weights, values = gradient(examples, loss, engine.forward(rows))
    engine.forward_backward(rows, weights)
    return lambda: values


def gradient(
    examples: Sequence[Example], loss: Loss, tokens: TokenLogps
) -> tuple["NDArray[np.floating]", dict[str, float]]:
    """Return -∂C/∂ℓ of each learned token, shape (tokens,), and the means of loss and metrics.

    C is the mean of rows' losses, each weighted by the method.
    """
    import torch

    policy, leaf = _policy([example.tokens for example in examples], tokens, loss.by_token)
    weight = torch.tensor([loss.weight(example) for example in examples], dtype=leaf.dtype)
    means = {name: (each * weight).sum() / loss.total(examples) for name, each in loss(examples, policy).items()}
    # A loss of which no token is learned has no gradient at all: that is a gradient of zeros.
    (slopes,) = torch.autograd.grad(means["loss"], leaf, allow_unused=True)
    weights: NDArray[np.floating] = (torch.zeros_like(leaf) if slopes is None else -slopes).numpy()
    return weights, {name: value.item() for name, value in means.items()}


def scores(rows: Sequence[TokenRow], tokens: TokenLogps, by_token: bool) -> Scores:
    """Return the scores of rows' answers, given those of their learned tokens; without a gradient."""
    import torch

    with torch.no_grad():
        return _policy(rows, tokens, by_token)[0]


def _policy(rows: Sequence[TokenRow], tokens: TokenLogps, by_token: bool) -> tuple[Scores, "Tensor"]:
    """Return the scores of rows' answers, and the tensor of log-probabilities that they are functions of."""
    import torch

    counts = [count for row in rows for count in num_learned(row)]
    leaf = torch.as_tensor(tokens.logps).requires_grad_()
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    if tokens.likeliest is None:
        correct = torch.full_like(leaf, torch.nan, requires_grad=False)
    else:
        correct = torch.as_tensor(tokens.likeliest).to(leaf.dtype)
    shape = len(rows), len(counts) // len(rows)
    return Scores.of_tokens(TokenScores(leaf, owner, correct), shape, by_token), leaf
