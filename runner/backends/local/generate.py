"""Prompts answered by a run's model, on one rank or several, and the base model's answers out of the cache."""

from collections.abc import Sequence
from typing import Any

from runner.backends.local import disk_cache, generation
from runner.backends.local.loaded_model import LoadedModel
from runner.data.rows import Prompt
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record.samples import Replies, Reply, Sampling

Prompts = Sequence[Prompt]


def replies(
    model: Any, tokenizer: ChatTokenizer, prompts: Prompts, sampling: Sampling, **more: Any
) -> list[list[Reply]]:
    """Return a model's answers to each prompt; `more` is what `generation.sample` takes besides."""
    found = generation.sample(model, tokenizer, prompts, sampling, **more)
    return [[Reply(each.text, each.ended) for each in answers] for answers in found]


def model_replies(loaded: LoadedModel, asked: Any, prompts: Prompts, sampling: Sampling) -> list[list[Reply]]:
    """Return the answers to each prompt, on every rank.

    Each rank computes a part of the prompts. Where the weights are sharded, all compute all, in step with each other.
    """
    group = loaded.group
    if loaded.sharded:
        # Ranks that bound their memory differently would call the model a different number of times.
        memory = group.broadcast(generation.free_memory(loaded.device) // 2)
        return replies(asked, loaded.tokenizer, prompts, sampling, memory=memory)
    lengths = [sum(len(turn.content or "") for turn in prompt.turns) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: -lengths[index])
    own = [prompts[index] for index in order[group.rank.rank :: group.rank.world_size]]
    parts = group.all_gather(replies(asked, loaded.tokenizer, own, sampling))
    found: list[list[Reply]] = [[] for _ in prompts]
    for rank, part in enumerate(parts):
        for index, each in zip(order[rank :: group.rank.world_size], part, strict=True):
            found[index] = each
    return found


def base_replies(loaded: LoadedModel, prompts: Prompts, sampling: Sampling) -> Replies:
    """Return the base model's answers: generated once per model, prompts and sampling, then cached on disk."""
    path = disk_cache.place("answers", loaded.base_identity, prompts, sampling)
    known: Replies | None = loaded.group.broadcast(disk_cache.read(path, list[list[Reply]]))
    if known is None:
        with loaded.base_model() as base:
            known = model_replies(loaded, base, prompts, sampling)
        if loaded.group.rank.first:
            disk_cache.keep(path, known)
    return known
