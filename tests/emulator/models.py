"""Which base models there are, and by which methods each can be tuned."""

from typing import NamedTuple


class Base(NamedTuple):
    """A base model: its dated name, the methods that tune it, and its training types, where one has to be named."""

    dated: str
    methods: tuple[str, ...]
    training_types: tuple[str, ...] = ()


BASES = {
    "gpt-4o": Base("gpt-4o-2024-08-06", ("supervised", "dpo")),
    # Microsoft's table of models has no DPO of it, its SDK's sample program takes it by default (unverified).
    "gpt-4o-mini": Base("gpt-4o-mini-2024-07-18", ("supervised", "dpo")),
    "gpt-4.1": Base("gpt-4.1-2025-04-14", ("supervised", "dpo")),
    "gpt-4.1-mini": Base("gpt-4.1-mini-2025-04-14", ("supervised", "dpo")),
    "gpt-4.1-nano": Base("gpt-4.1-nano-2025-04-14", ("supervised", "dpo")),
    "gpt-35-turbo": Base("gpt-35-turbo-0125", ("supervised",)),
    "o4-mini": Base("o4-mini-2025-04-16", ("reinforcement",)),
    "gpt-5": Base("gpt-5-2025-08-07", ("reinforcement",)),
    # Open models are trained globally only, and have no training type by default; that MAI's want one named was seen.
    **{
        name: Base(name, ("reinforcement",), ("GlobalStandard",))
        for name in ("Alibaba/qwen3.6-35b-a3b", "Qwen3.8-27B", "Muse-Glimmer-30B", "gpt-oss-120b")
    },
    **{
        name: Base(name, ("reinforcement",), ("Standard", "GlobalStandard", "Developer"))
        for name in ("MAI-Code-1-Flash", "MAI-Code-1.1-Flash")
    },
    "Ministral-3B": Base("Ministral-3B", ("supervised",)),  # its dated name is not known
}


def base_of(name: str) -> str | None:
    """Return the plain name of a base model given by its plain or its dated name."""
    return next((plain for plain, base in BASES.items() if name in (plain, base.dated)), None)
