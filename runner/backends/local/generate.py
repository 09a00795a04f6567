"""Answers: the likeliest continuation of a prompt, token by token."""

from collections.abc import Sequence
from typing import Any

import torch

from runner.backends.local import disk_cache
from runner.backends.local.engine import LocalEngine
from runner.data.rows import Message
from runner.models.chat_tokenizer import ChatTokenizer
from runner.record.samples import Replies, Reply, Sampling

Prompts = Sequence[Sequence[Message]]
Answers = list[tuple[str, bool]]
"""Each answer, and whether it ended by itself."""


def answers_of(engine: LocalEngine, asked: Any, prompts: Prompts, sampling: Sampling) -> Replies:
    """Return rank 0's answers; the others compute them, too, if it needs their part of the weights."""
    if not engine.group.rank.first and not engine.sharded:
        return [[Reply("")]] * len(prompts)
    found = answers(asked, engine.tokenizer, prompts, sampling.max_new_tokens)
    return [[Reply(*each)] * sampling.per_prompt for each in found]


def base_answers(engine: LocalEngine, prompts: Prompts, sampling: Sampling) -> Replies:
    """Return the base model's answers: generated once per model and prompts, then cached on disk."""
    path = disk_cache.place("answers", engine.base_identity, prompts, sampling)
    known: Replies | None = engine.group.broadcast(disk_cache.read(path, list[list[Reply]]))
    if known is None:
        with engine.base_model() as base:
            known = answers_of(engine, base, prompts, sampling)
        if engine.group.rank.first:
            disk_cache.keep(path, known)
    return known


@torch.no_grad()
def answers(model: Any, tokenizer: ChatTokenizer, prompts: Prompts, max_new_tokens: int) -> Answers:
    """Return the greedy answer to each prompt, and whether it ended by itself within `max_new_tokens`."""
    ids = [tokenizer.encode(tokenizer.render(prompt, answer_next=True)) for prompt in prompts]
    longest = max(len(each) for each in ids)
    ends = _ends(model)
    padded = torch.tensor([[ends[0]] * (longest - len(each)) + each for each in ids], device=model.device)
    seen = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in ids], device=model.device)
    model.eval()
    whole = model.generate(
        input_ids=padded,
        attention_mask=seen,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=ends[0],
    )
    return [_answer(tokenizer, row[longest:].tolist(), ends) for row in whole]


def _ends(model: Any) -> list[int]:
    """Return the ids that end a turn."""
    found = model.generation_config.eos_token_id
    return list(found) if isinstance(found, list | tuple) else [found]


def _answer(tokenizer: ChatTokenizer, ids: list[int], ends: list[int]) -> tuple[str, bool]:
    stop = next((index for index, token in enumerate(ids) if token in ends), None)
    return tokenizer.decode(ids[:stop]).strip(), stop is not None
