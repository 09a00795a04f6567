"""Answers of an engine's models: each rank computes a part of them, and the base model's are kept."""

from collections.abc import Sequence
from typing import Any

from runner.backends.local import disk_cache, generation
from runner.backends.local.engine import LocalEngine
from runner.backends.local.generation import Answer
from runner.data.rows import Message
from runner.models.chat_tokenizer import ChatTokenizer

Prompts = Sequence[Sequence[Message]]
Answers = list[tuple[str, bool]]
"""Each answer, and whether it ended by itself."""


def samples_of(
    engine: LocalEngine, asked: Any, prompts: Prompts, max_new_tokens: int, **sampling: Any
) -> list[list[Answer]]:
    """Return the answers to each prompt, on every rank; `sampling` is what `generation.sample` takes besides.

    Each rank computes a part of the prompts. Where the weights are sharded, all compute all, in step with each other.
    """
    group = engine.group
    if engine.sharded:
        # Ranks that bound their memory differently would call the model a different number of times.
        sampling.setdefault("memory", group.broadcast(generation.free_memory(engine.device) // 2))
        return generation.sample(asked, engine.tokenizer, prompts, max_new_tokens=max_new_tokens, **sampling)
    lengths = [sum(len(message.content or "") for message in prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: -lengths[index])
    own = [prompts[index] for index in order[group.rank.rank :: group.rank.world_size]]
    found = generation.sample(asked, engine.tokenizer, own, max_new_tokens=max_new_tokens, **sampling)
    parts = group.all_gather([[tuple(each) for each in answers] for answers in found])
    answers: list[list[Answer]] = [[] for _ in prompts]
    for rank, part in enumerate(parts):
        for index, each in zip(order[rank :: group.rank.world_size], part, strict=True):
            answers[index] = [Answer(*fields) for fields in each]
    return answers


def answers_of(engine: LocalEngine, asked: Any, prompts: Prompts, max_new_tokens: int, **sampling: Any) -> Answers:
    """Return an answer to each prompt, on every rank, as `samples_of` computes them."""
    return _plain(samples_of(engine, asked, prompts, max_new_tokens, **sampling))


def base_answers(engine: LocalEngine, prompts: Prompts, max_new_tokens: int, **sampling: Any) -> Answers:
    """Return the base model's answers: generated once per model and prompts, then cached on disk."""
    decided_by = [engine.base_identity, prompts, max_new_tokens, *([sampling] if sampling else [])]
    path = disk_cache.place("answers", *decided_by)
    known: Answers | None = engine.group.broadcast(disk_cache.read(path, Answers))
    if known is None:
        with engine.base_model() as base:
            known = answers_of(engine, base, prompts, max_new_tokens, **sampling)
        if engine.group.rank.first:
            disk_cache.keep(path, known)
    return known


def answers(model: Any, tokenizer: ChatTokenizer, prompts: Prompts, max_new_tokens: int, **sampling: Any) -> Answers:
    """Return an answer to each prompt, greedy by default, and whether it ended by itself within `max_new_tokens`.

    `sampling` is what `generation.sample` takes besides: temperature, top_p, seed.
    """
    return _plain(generation.sample(model, tokenizer, prompts, max_new_tokens=max_new_tokens, **sampling))


def _plain(found: list[list[Answer]]) -> Answers:
    return [(first.text, first.ended) for first, *_ in found]
