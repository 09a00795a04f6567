"""Rows with images: what the models of a backend make of them, and the refusal where these learn from text alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from runner.data.images import Content, Image, look_into
from runner.data.rows import BadRow, Message, Oddity, Row


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
    return images_in(row.question)


def images_in(turns: Sequence[Message]) -> list[Image]:
    """Return the images of turns, in order."""
    return [image for turn in turns for image in turn.images or ()]


def looked_into(
    images: Sequence[Image], per_row: int | None, num_bytes: int | None, takes: str
) -> Iterator[tuple[Image, Content | None]]:  # fmt: skip
    """Yield each image of a row with its content, None for one at an address; raise `BadRow` for too many or too large.

    `takes` says who takes so many of one row, and so many bytes of one; None is no limit.
    """
    if per_row is not None and len(images) > per_row:
        raise BadRow("image", f"the row has {len(images)} images; {takes} {per_row} of one row; divide it")
    for image in images:
        content = look_into(image)
        if content is not None and num_bytes is not None and content.num_bytes > num_bytes:
            raise BadRow(
                "image",
                f"the image {image.name} has {content.num_bytes:,} bytes; {takes} up to {num_bytes:,}; make it smaller",
            )
        yield image, content
