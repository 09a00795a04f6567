"""Answers: the likeliest continuation of a prompt, token by token."""

from collections.abc import Sequence
from typing import Any

import torch

from runner.data.rows import Message
from runner.models.chat_tokenizer import ChatTokenizer


@torch.no_grad()
def answers(
    model: Any, tokenizer: ChatTokenizer, prompts: Sequence[Sequence[Message]], max_new_tokens: int
) -> list[tuple[str, bool]]:
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
