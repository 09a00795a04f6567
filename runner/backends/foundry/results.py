"""What steps return that later ones read, by its fields: `msgspec.convert` checks it where it is read."""

from typing import TypedDict


class Followed(TypedDict):
    """A job that has ended well: its model's name, its results files, and when and after which step it ended."""

    model: str
    trained_tokens: int | None
    result_files: list[str]
    finished_at: float
    step: int


class Deployed(TypedDict):
    """The deployments of the tuned and of the base model; None or empty where there is none of the base model."""

    deployment: str
    base: str | None
