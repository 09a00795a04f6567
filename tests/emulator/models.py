"""Which base models there are, by which methods each can be tuned, and how a tuned one can be deployed."""

from typing import NamedTuple

ALL_TYPES = ("Standard", "GlobalStandard", "DatazoneStandard", "developerTier")
ALL_SKUS = ("Standard", "GlobalStandard", "DataZoneStandard", "DeveloperTier", "ProvisionedManaged")
GLOBAL = ("GlobalStandard",)


class Base(NamedTuple):
    """A base model: its dated name, the methods that tune it, its training types and SKUs, and its publisher.

    `named` says that a training type has to be given, `sees` which methods take rows with images.
    """

    dated: str
    methods: tuple[str, ...]
    training_types: tuple[str, ...] = ALL_TYPES
    named: bool = False
    skus: tuple[str, ...] = ALL_SKUS
    format: str = "OpenAI"
    sees: tuple[str, ...] = ()


BASES = {
    "gpt-4o": Base("gpt-4o-2024-08-06", ("supervised", "dpo"), sees=("supervised",)),
    # Microsoft's table of models has no DPO of it, its SDK's sample program takes it by default (unverified).
    "gpt-4o-mini": Base("gpt-4o-mini-2024-07-18", ("supervised", "dpo")),
    "gpt-4.1": Base("gpt-4.1-2025-04-14", ("supervised", "dpo"), sees=("supervised",)),
    "gpt-4.1-mini": Base("gpt-4.1-mini-2025-04-14", ("supervised", "dpo")),
    "gpt-4.1-nano": Base("gpt-4.1-nano-2025-04-14", ("supervised", "dpo")),
    "gpt-35-turbo": Base("gpt-35-turbo-0125", ("supervised",)),
    "o4-mini": Base("o4-mini-2025-04-16", ("reinforcement",)),
    "gpt-5": Base("gpt-5-2025-08-07", ("reinforcement",)),
    # Open models have no training type by default; that MAI's want one named was seen.
    **{
        name: Base(name, ("supervised", "reinforcement"), ("GlobalStandard", "developerTier"), True, (), publisher)
        for name, publisher in (
            ("Alibaba/qwen3.6-35b-a3b", "Alibaba"),
            ("Qwen3.6-35B-A3B", "Alibaba"),
            ("Qwen3.8-27B", "Alibaba"),
            ("Muse-Glimmer-30B", "Meta"),
            ("gpt-oss-120b", "Microsoft"),
        )
    },
    **{
        name: Base(name, ("reinforcement",), ALL_TYPES, True, GLOBAL, "Microsoft")
        for name in ("MAI-Code-1-Flash", "MAI-Code-1.1-Flash")
    },
    # Their dated names are not known. The SDK's sample program names no training type for Ministral-3B.
    **{
        name: Base(name, ("supervised",), ("GlobalStandard", "DatazoneStandard"), False, GLOBAL, publisher)
        for name, publisher in (
            ("Ministral-3B", "Mistral AI"),
            ("Llama-3.3-70B-Instruct", "Meta"),
            ("Qwen3-32B", "Alibaba"),
            ("gpt-oss-20b", "Microsoft"),
        )
    },
}


def training_type(asked: str) -> str | None:
    """Return the training type that a value means, whatever its case: the service's own pages write it in three."""
    return next((each for each in ALL_TYPES if each.lower() == asked.lower()), None)


def base_of(name: str) -> str | None:
    """Return the plain name of a base model given by its plain or its dated name."""
    return next((plain for plain, base in BASES.items() if name in (plain, base.dated)), None)
