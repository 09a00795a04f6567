"""Rows with images: what the models of a backend make of them, and the refusal where these learn from text alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from runner.data.images import Image
from runner.data.rows import BadRow, Oddity, Row


class Vision(Protocol):
    """What sees the images of rows; that each is an image was checked when it was read."""

    def look(self, row: Row) -> Iterator[Oddity]:
        """Yield what is not known of a row's images. Raises `BadRow` where the row cannot be trained on."""

    def tokens(self, row: Row) -> int:
        """Return how many tokens the images of a row take; at most so many where that depends on the unknown."""


@dataclass(frozen=True)
class TextAlone:
    """The vision of a backend that has none."""

    backend: str

    def look(self, row: Row) -> Iterator[Oddity]:
        """Raise `BadRow`."""
        raise BadRow(
            "image",
            f"the row holds an image ({images_of(row)[0].name}), and backend={self.backend} trains on text alone; "
            "take such rows out, or use backend=foundry, foundry_sessions or tinker with a model that sees",
        )

    def tokens(self, row: Row) -> int:
        """Return 0."""
        return 0


def images_of(row: Row) -> list[Image]:
    """Return the images of a row, all of which are in its prompt."""
    return [image for turn in row.question for image in turn.images or ()]
