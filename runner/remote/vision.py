"""Images in the rows of a session: what the service takes of them, and what the model's image processor does."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from runner import methods, models
from runner.data.quality.vision import images_of, looked_into
from runner.data.rows import BadRow, Oddity, Row
from runner.errors import DataError, ModelError
from runner.models import vision
from runner.models.chat.image_tokens import num_tokens
from runner.request.keys import Request


@dataclass(frozen=True)
class ImageLimits:
    """What a service takes of images: formats, how many in a row, bytes of one; None where it says nothing."""

    formats: tuple[str, ...]
    per_row: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class SessionVision:
    """What a backend's sessions and a model make of images; `folder` has the model's files where they are here."""

    backend: str
    limits: ImageLimits
    method: str
    folder: Path | None

    def look(self, row: Row) -> Iterator[Oddity]:
        """Yield nothing. Raises `BadRow` for images that cannot be sent, or whose number of tokens is not known."""
        if methods.load(self.method).graded:
            # Answers are sampled and learned by ids alone there.
            raise BadRow(
                "image",
                f"the row holds an image, and method={self.method} samples and learns from text alone; take such rows "
                "out, or use method=sft or dpo",
            )
        for image, content in looked_into(images_of(row), self.limits.per_row, self.limits.bytes, "sessions take"):
            if content is None:
                raise BadRow(
                    "image",
                    f"the image {image.name} is at an address, and sessions take the content of images alone; write "
                    "data:image/png;base64,… in its place, or use backend=foundry",
                )
            if image.format not in self.limits.formats:
                raise BadRow(
                    "image",
                    f"the image {image.name} is {image.format.upper()}; sessions of backend={self.backend} take "
                    f"{' and '.join(map(str.upper, self.limits.formats))}; convert it",
                )
            try:
                if self.folder is not None:
                    num_tokens(image, self._processor)
            except (DataError, ModelError) as error:
                raise BadRow("image", str(error).rstrip(".")) from None
        yield from ()

    @cached_property  # asked for each image
    def _processor(self) -> vision.ImageProcessor:
        assert self.folder is not None
        return vision.find(self.folder)

    def tokens(self, row: Row) -> int:
        """Return 0: the model's own tokenizer counts images among the tokens of their text."""
        return 0


def of(backend: str, limits: ImageLimits, request: Request) -> SessionVision:
    """Return what the model of a request makes of images in sessions of a backend."""
    folder = models.cached(request.model.source)
    tokenizer = None if folder is None else models.tokenizer_folder(folder)
    return SessionVision(backend, limits, request.method, tokenizer)
