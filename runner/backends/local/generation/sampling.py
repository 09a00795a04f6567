"""Which token comes next: for all rows at once, and for each row by random numbers of its own.

A row's numbers come of the seed, its prompt and which of the prompt's samples it is. So an answer does not depend on
what else is computed with it, as far as the logits do not: rows computed together are rounded differently from
rows alone, and a number that falls within that of a boundary between two tokens may choose the other one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

LIKELY = 256
"""Tokens among which a nucleus is looked for first: to sort a vocabulary of 49,152 takes 10 times as long."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: greedily at temperature 0, else from the `top_p` nucleus of softmax(logits / temperature).

    `ends` are the ids that end an answer.
    """

    max_new_tokens: int
    ends: frozenset[int]
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Row:
    """An answer in the making: `ids` after `prompt`, and the log-probability of each."""

    def __init__(self, prompt: Sequence[int], sample: int, how: Sampling) -> None:
        self.prompt, self.ids, self.logps = prompt, list[int](), list[float]()
        self._how, self._numbers = how, _numbers(prompt, sample, how) if how.temperature else []

    @property
    def ended(self) -> bool:
        """Whether the answer has come to its own end."""
        return bool(self.ids) and self.ids[-1] in self._how.ends

    @property
    def done(self) -> bool:
        """Whether no token is to follow."""
        return self.ended or len(self.ids) >= self._how.max_new_tokens

    @property
    def number(self) -> float:
        """The uniform number that decides on the next token; any for a greedy answer."""
        return self._numbers[len(self.ids)] if self._numbers else 0.0


def extend(rows: Sequence[Row], logits: Tensor, how: Sampling) -> list[int]:
    """Append the next token to each row that is not done, given logits (rows, vocabulary); return the tokens."""
    numbers = torch.tensor([0.0 if row.done else row.number for row in rows], dtype=torch.float64)
    tokens, logps = draw(logits, numbers.to(logits.device), how.temperature, how.top_p)
    drawn: list[int] = tokens.tolist()
    for row, token, logp in zip(rows, drawn, logps.tolist(), strict=True):
        if not row.done:
            row.ids.append(token)
            row.logps.append(logp)
    return drawn


def draw(logits: Tensor, numbers: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Return a token for each row and its log-probability, both (rows,).

    logits (rows, vocabulary); numbers (rows,) float64, uniform in [0, 1). The log-probabilities are those of
    softmax(logits / temperature) over the whole vocabulary, of softmax(logits) where the temperature is 0: what a
    scorer of the same tokens finds, whatever `top_p` leaves out.
    """
    if not temperature:
        logps = logits.float().log_softmax(-1)
        tokens = logits.argmax(-1)
    else:
        logps = (logits.float() / temperature).log_softmax(-1)
        tokens = _nucleus(logps.exp(), numbers, top_p) if top_p < 1 else _inverse(logps.exp(), numbers)
    return tokens, logps.gather(1, tokens[:, None])[:, 0]


def _inverse(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """Return for each row the first place where the summed probabilities exceed its number's share of the whole."""
    sums = probabilities.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(sums, (numbers * sums[:, -1])[:, None], right=True)[:, 0].clamp_(max=sums.shape[1] - 1)


def _nucleus(probabilities: Tensor, numbers: Tensor, top_p: float) -> Tensor:
    """Draw from the fewest tokens that together have `top_p` (Holtzman et al. 2020, arXiv:1904.09751)."""
    # A sort of the whole only for vocabularies that are so flat: which way is taken does not change what is drawn.
    size = min(LIKELY, probabilities.shape[1])
    likely, order = probabilities.topk(size)
    if bool((likely.sum(-1) < top_p).any()):
        likely, order = probabilities.sort(-1, descending=True)
    before = likely.cumsum(-1, dtype=torch.float64) - likely
    return order.gather(1, _inverse(likely.masked_fill(before >= top_p, 0.0), numbers)[:, None])[:, 0]


def _numbers(prompt: Sequence[int], sample: int, how: Sampling) -> list[float]:
    drawn_by = f"{how.seed}/{sample}/{','.join(map(str, prompt))}"
    generator = torch.Generator().manual_seed(int.from_bytes(sha256(drawn_by.encode()).digest()[:8], "big") >> 1)
    numbers: list[float] = torch.rand(how.max_new_tokens, generator=generator, dtype=torch.float64).tolist()
    return numbers
