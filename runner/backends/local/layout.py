"""How a row lies in a tensor: its prompt once, then its answers, each blind to the others.

    tokens      p p p p | c c c | r r r r        prompt, chosen, rejected
    positions   0 1 2 3   4 5 6   4 5 6 7        each answer goes on where the prompt ends
    attention   an answer's token sees the prompt and its own answer up to itself

The usual layout repeats the prompt for each answer and pads to the longest; this one computes no token
twice and pads nothing. It is exact for models whose only notion of order is the causal mask and position
ids; `exact` (in logps.py) shows it for the model at hand, and `plain` is the layout to fall back to.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from runner.tokens import TokenRow


@dataclass(frozen=True)
class Laid:
    """One sequence of T tokens in which A answer tokens are scored.

    `ids`, `positions` (1, T); `mask` (1, 1, T, T), True where attention may look, or None for plain causal
    order; `predict` (A,) the positions whose next token is scored; `labels` (A,) those tokens; `answer`
    (A,) the index of the answer that each belongs to.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor | None
    predict: Tensor
    labels: Tensor
    answer: Tensor


def shared(row: TokenRow) -> list[Laid]:
    """Lay all answers of a row behind one prompt."""
    if len(row.answers) == 1:
        return plain(row)
    return [_lay(row, range(len(row.answers)))]


def plain(row: TokenRow) -> list[Laid]:
    """Lay each answer behind a prompt of its own, in plain causal order."""
    return [_lay(row, [index]) for index in range(len(row.answers))]


def _lay(row: TokenRow, which: range | list[int]) -> Laid:
    prompt = len(row.prompt)
    ids, positions, owners = list(row.prompt), list(range(prompt)), [-1] * prompt
    predict: list[int] = []
    labels: list[int] = []
    answer: list[int] = []
    for index in which:
        start = len(ids)
        ids += row.answers[index]
        positions += range(prompt, prompt + len(row.answers[index]))
        owners += [index] * len(row.answers[index])
        for offset, learned in enumerate(row.learned[index]):
            if learned and (offset or prompt):  # the very first token of a text has nothing to be predicted from
                predict.append(start + offset - 1 if offset else prompt - 1)
                labels.append(row.answers[index][offset])
                answer.append(index)
    mask = _tree_mask(torch.tensor(owners)) if len(which) > 1 else None
    return Laid(
        torch.tensor([ids]),
        torch.tensor([positions]),
        mask,
        torch.tensor(predict),
        torch.tensor(labels),
        torch.tensor(answer),
    )


def _tree_mask(owners: Tensor) -> Tensor:
    """Return (1, 1, T, T): a token sees what stands before it, if that is the prompt's or its own answer's."""
    causal = torch.ones(len(owners), len(owners), dtype=torch.bool).tril()
    visible = (owners[None, :] == -1) | (owners[None, :] == owners[:, None])
    return (causal & visible)[None, None]
