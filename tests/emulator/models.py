"""Which base models there are, and by which methods each can be tuned."""

from typing import NamedTuple


class Base(NamedTuple):
    """A base model: its dated name and the methods that tune it."""

    dated: str
    methods: tuple[str, ...]


BASES = {
    "gpt-4o": Base("gpt-4o-2024-08-06", ("supervised", "dpo")),
    "gpt-4o-mini": Base("gpt-4o-mini-2024-07-18", ("supervised",)),
    "gpt-4.1": Base("gpt-4.1-2025-04-14", ("supervised", "dpo")),
    "gpt-4.1-mini": Base("gpt-4.1-mini-2025-04-14", ("supervised", "dpo")),
    "gpt-4.1-nano": Base("gpt-4.1-nano-2025-04-14", ("supervised", "dpo")),
    "o4-mini": Base("o4-mini-2025-04-16", ("reinforcement",)),
}


def base_of(name: str) -> str | None:
    """Return the plain name of a base model given by its plain or its dated name."""
    return next((plain for plain, base in BASES.items() if name in (plain, base.dated)), None)
