"""Rows that are decoded together, and the attention that reads and fills their key/value cache.

    tokens of a step    p p p p p p p p | t | t t t         one sequence: the prompts of a new cohort, a token of each
                        [new cohort   ]  [ ] [   ]          row of the others; only attention knows where rows part

    cache of a cohort   . . p p p t t _ _ _                 a row each, aligned at the prompts' ends: the next token
                        p p p p p t t _ _ _                 has one place in all; `.` is masked, `_` is for answers

A cohort's prompts are of nearly the same length, so that little of the cache is padding, and attention reads no more
than it has to: over long prompts that takes as long as all products. Nothing is padded outside of attention. A row
that is done leaves: the last one moves into its place. The samples of a prompt share its computation.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from runner.backends.local.generation.sampling import Row

NAME = "cohorts"


class Cohort:
    """Some rows, with room for their answers; rows of the same prompt stand side by side."""

    def __init__(self, rows: Sequence[Row], max_new_tokens: int) -> None:
        self.rows = list(rows)
        self.longest = max(len(row.prompt) for row in rows)
        self.places = len(rows) * (self.longest + max_new_tokens)
        """Tokens that there is room for."""
        self._capacity, self._filled = self.longest + max_new_tokens, 0
        self._fresh: list[tuple[int, int, list[int]]] = []
        self._layers: dict[Module, tuple[Tensor, Tensor]] = {}
        self._mask: Tensor | None = None

    @property
    def fresh_tokens(self) -> int:
        """How many tokens of prompts are to be computed, each prompt once."""
        return sum(len(prompt) for prompt, _ in self._prompts()) if not self._filled else 0

    def next(self) -> tuple[list[int], list[int], list[int]]:
        """Return the tokens to be computed, their positions, and which of them predicts the next token of each row."""
        if self._filled:
            self._fresh, self._filled = [], self._filled + 1
            places = [len(row.prompt) + len(row.ids) - 1 for row in self.rows]
            return [row.ids[-1] for row in self.rows], places, list(range(len(self.rows)))
        self._filled = self.longest
        ids, positions, predict = list[int](), list[int](), list[int]()
        for prompt, rows in self._prompts():
            self._fresh.append((len(ids), len(ids) + len(prompt), rows))
            ids += prompt
            positions += range(len(prompt))
            predict += [len(ids) - 1] * len(rows)
        return ids, positions, predict

    def attend(self, layer: Module, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Return the attention's output (T, heads, size) for query (T, heads, size), key and value (T, groups, size).

        They are of the tokens that `next` has returned; keys and values are kept.
        """
        if self._fresh:
            return self._read_prompts(layer, query, key, value, scale)
        count, filled = len(self.rows), self._filled
        keys, values = (held[:count, :, :filled] for held in self._layers[layer])
        keys[:, :, -1], values[:, :, -1] = key, value
        mask = None if self._mask is None else self._mask[:count, :, :, :filled]
        # The heads of a group as queries of one head: keys are read once for all, and no head is repeated in memory.
        by_group = query.unflatten(1, (key.shape[1], -1))
        return scaled_dot_product_attention(by_group, keys, values, attn_mask=mask, scale=scale).flatten(1, 2)

    def _read_prompts(self, layer: Module, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        keys, values = self._layers[layer] = self._room(key), self._room(value)
        heads = query.shape[1] // key.shape[1]
        parts = []
        for start, end, rows in self._fresh:
            q, k, v = (each[start:end].transpose(0, 1) for each in (query, key, value))
            for row in rows:
                keys[row, :, self.longest - end + start : self.longest] = k
                values[row, :, self.longest - end + start : self.longest] = v
            # Expanded without a copy; on a CPU `enable_gqa` is slower by a fifth.
            k, v = (each.unsqueeze(1).expand(-1, heads, -1, -1) for each in (k, v))
            out = scaled_dot_product_attention(q.unflatten(0, (-1, heads)), k, v, is_causal=True, scale=scale)
            parts.append(out.flatten(0, 1).transpose(0, 1))
        return torch.cat(parts)

    def _room(self, states: Tensor) -> Tensor:
        """Return a layer's cache (rows, groups, capacity, size); what is masked is finite."""
        held = states.new_empty(len(self.rows), states.shape[1], self._capacity, states.shape[2])
        pads = [self.longest - len(row.prompt) for row in self.rows]
        for row, pad in enumerate(pads):
            held[row, :, :pad] = 0  # memory as it comes may hold NaN, which a weight of zero does not cancel
        if self._mask is None and any(pads):
            self._mask = states.new_zeros(len(self.rows), 1, 1, self._capacity)
            for row, pad in enumerate(pads):
                self._mask[row, ..., :pad] = -torch.inf
        return held

    def drop_done(self) -> list[Row]:
        """Let the rows leave that are done, and return them."""
        done = [row for row in self.rows if row.done]
        for index in reversed(range(len(self.rows))):
            if self.rows[index].done:
                last = self.rows.pop()
                if index < len(self.rows):
                    self.rows[index] = last
                    self._move(len(self.rows), index)
        return done

    def _move(self, source: int, target: int) -> None:
        for held in (each for layer in self._layers.values() for each in layer):
            held[target, :, : self._filled] = held[source, :, : self._filled]
        if self._mask is not None:
            self._mask[target] = self._mask[source]

    @property
    def bytes_per_token(self) -> int:
        """How much the cache of all layers takes for a token, once it is there; 0 where no layer has asked for it."""
        held = (each for layer in self._layers.values() for each in layer)
        return sum(each.shape[1] * each.shape[3] * each.element_size() for each in held)

    def _prompts(self) -> Iterator[tuple[Sequence[int], list[int]]]:
        """Yield each prompt with the rows that it belongs to."""
        index = 0
        while index < len(self.rows):
            prompt, rows = self.rows[index].prompt, [index]
            while rows[-1] + 1 < len(self.rows) and self.rows[rows[-1] + 1].prompt is prompt:
                rows.append(rows[-1] + 1)
            yield prompt, rows
            index = rows[-1] + 1


def forward(model: PreTrainedModel, cohorts: Sequence[Cohort]) -> Tensor:
    """Compute the next tokens of some cohorts; return the logits of what follows each row (rows, vocabulary)."""
    ids, positions, predict, sizes = list[int](), list[int](), list[int](), list[int]()
    for cohort in cohorts:
        own, places, last = cohort.next()
        predict += [len(ids) + each for each in last]
        ids += own
        positions += places
        sizes.append(len(own))
    as_tensor = {"input_ids": [ids], "position_ids": [positions], "logits_to_keep": predict}
    asked = {name: torch.tensor(value, device=model.device) for name, value in as_tensor.items()}
    logits: Tensor = model(**asked, use_cache=False, cohorts=(cohorts, sizes)).logits[0]
    return logits


def attend(  # noqa: PLR0913 (transformers' own order of arguments)
    module: Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    cohorts: tuple[Sequence[Cohort], list[int]], scaling: float | None = None, sliding_window: int | None = None,
    softcap: float | None = None, **_: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """Return the attention's output (1, T, heads, size) for query (1, heads, T, size), as transformers asks for it."""
    if sliding_window is not None or softcap is not None:
        raise NotImplementedError("cohorts: attention is plain softmax over all that came before")
    parts = (each[0].transpose(0, 1).split(cohorts[1]) for each in (query, key, value))
    outs = [
        cohort.attend(module.layer_idx, q, k, v, scaling) for cohort, q, k, v in zip(cohorts[0], *parts, strict=True)
    ]
    return torch.cat(outs)[None], None


AttentionInterface.register(NAME, attend)


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model's attention is that of cohorts."""
    own = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(own)
