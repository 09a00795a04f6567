"""How rows lie in a tensor: rows one behind the other, each with its prompt once, then its answers.

    tokens      p p p p c c c r r r r | p p c c r r        row after row: prompt, chosen, rejected
    positions   0 1 2 3 4 5 6 4 5 6 7 | 0 1 2 3 2 3        an answer continues where its prompt ends
    segments    [-----] [---] [-----] | [-] [-] [-]        a token sees its own segment up to itself,
                                                           and an answer's sees its prompt

The usual layout repeats the prompt for each answer and pads every row to the longest; this one computes no
token twice and pads nothing, and no row sees another. It is exact for models whose only notion of order is
attention and position ids; `exact` (in scorer.py) shows it for the model at hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from runner.models.chat.tokenizer import TokenRow


@dataclass(frozen=True)
class Segment:
    """Tokens from `start` to `end` that see each other in causal order, and all from `prompt` to `prompt_end`."""

    start: int
    end: int
    prompt: int = 0
    prompt_end: int = 0


@dataclass(frozen=True)
class Pack:
    """Rows laid out as one sequence of T tokens in which A answer tokens are scored.

    `ids`, `positions`, `row_lengths` (1, T), the last the length of the row that each token belongs to;
    `predict` (A,) the positions whose next token is scored; `labels` (A,) those tokens; `owner` (A,) the answer
    that each belongs to, counted through all rows; `shape` is (rows, answers).
    """

    ids: Tensor
    positions: Tensor
    row_lengths: Tensor
    segments: tuple[Segment, ...]
    predict: Tensor
    labels: Tensor
    owner: Tensor
    shape: tuple[int, int]

    def to(self, device: torch.device) -> "Pack":
        """Return the same pack with its tensors on a device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)  # type: ignore[arg-type]


class _Sequence:
    """A pack in the making."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []
        self.predict: list[int] = []
        self.labels: list[int] = []
        self.owner: list[int] = []

    def prompt(self, prompt: list[int]) -> tuple[int, int]:
        """Append a prompt as a segment; return where it lies."""
        start = len(self.ids)
        self.ids += prompt
        self.positions += range(len(prompt))
        if prompt:
            self.segments.append(Segment(start, len(self.ids)))
        return start, len(self.ids)

    def answer(self, answer: list[int], learned: list[bool], prompt: tuple[int, int], owner: int) -> None:
        """Append an answer that continues a prompt, as a segment."""
        start, length = len(self.ids), prompt[1] - prompt[0]
        self.ids += answer
        self.positions += range(length, length + len(answer))
        segment = Segment(start, len(self.ids), *prompt) if length else Segment(start, len(self.ids))
        self.segments.append(segment)
        for offset, wanted in enumerate(learned):
            if wanted and (offset or length):  # the very first token of a text has nothing to be predicted from
                # An answer's first token is predicted by its prompt's last, which lies elsewhere in the pack for all
                # answers but the first.
                self.predict.append(start + offset - 1 if offset else prompt[1] - 1)
                self.labels.append(answer[offset])
                self.owner.append(owner)

    def join(self) -> None:
        """Make one segment, in plain causal order, of the last prompt and the one answer behind it."""
        # Plain causal order needs no mask, and attention without one is the fast case (`_mask`).
        if len(self.segments) > 1 and self.segments[-1].prompt_end == self.segments[-1].start:
            prompt, answer = self.segments[-2:]
            self.segments[-2:] = [Segment(prompt.start, answer.end)]


def pack(rows: Sequence[TokenRow]) -> Pack:
    """Lay rows, which all have as many answers, one behind the other."""
    sequence = _Sequence()
    lengths: list[int] = []
    num_answers = len(rows[0].answers)
    for number, row in enumerate(rows):
        start = len(sequence.ids)
        prompt = sequence.prompt(row.prompt)
        for index, (answer, learned) in enumerate(zip(row.answers, row.learned, strict=True)):
            sequence.answer(answer, learned, prompt, number * num_answers + index)
        if num_answers == 1:
            sequence.join()
        # As long as the row would be with one answer a sequence, which NEFTune scales its noise by.
        lengths += [len(row.prompt) + max(map(len, row.answers))] * (len(sequence.ids) - start)
    return Pack(
        torch.tensor([sequence.ids]),
        torch.tensor([sequence.positions]),
        torch.tensor([lengths]),
        tuple(sequence.segments),
        torch.tensor(sequence.predict, dtype=torch.long),
        torch.tensor(sequence.labels, dtype=torch.long),
        torch.tensor(sequence.owner, dtype=torch.long),
        (len(rows), num_answers),
    )
