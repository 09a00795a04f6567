"""Images in the rows of a job: the service's limits, which models see, and how many tokens an image takes.

https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-vision
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from runner import models
from runner.backends.foundry.catalogue import Catalogue, ImageTokens, Model, catalogue
from runner.backends.foundry.keys import Foundry
from runner.data.images import Content, Image, look_into
from runner.data.quality.vision import images_of, looked_into
from runner.data.rows import BadRow, Oddity, Row
from runner.data.survey import Survey
from runner.errors import DataError
from runner.request.keys import Request

LONGEST, SHORTEST, TILE = 2048, 768, 512
"""Pixels: an image is scaled down to fit a square of the first, then until its short side has the second, and counted
in squares of the third. https://learn.microsoft.com/azure/ai-services/openai/overview#image-input-tokens"""
MOST_TILES = ceil(LONGEST / TILE) * ceil(SHORTEST / TILE)


@dataclass(frozen=True)
class FoundryVision:
    """What the service makes of the images in rows for one of its models and a method."""

    table: Catalogue
    name: str
    method: str

    @cached_property  # asked for each row
    def model(self) -> Model | None:
        """What the table knows of the model."""
        return self.table.find(self.name)

    def look(self, row: Row) -> Iterator[Oddity]:
        """Yield that images at addresses were not looked at. Raises `BadRow` for what the service refuses."""
        found, limits = images_of(row), self.table.images
        if self.model is not None and self.method not in self.model.sees:
            raise BadRow("image", self._blind())
        per_row, num_bytes = (limits.per_row, limits.bytes) if limits else (None, None)
        seen = looked_into(found, per_row, num_bytes, "the service takes")
        if away := [image for image, content in seen if content is None]:
            yield Oddity(
                "image-address",
                f"the image {away[0].name} is not fetched: that it is there, its format and its size, only the service "
                "checks",
            )

    # Looked into once more, not kept: only the head of an image is decoded, and the rows of an estimate are few.
    def tokens(self, row: Row) -> int:
        """Return the tokens of a row's images; none for a model whose formula is not known."""
        formula = self.model.image_tokens if self.model else None
        return sum(tokens_of(image, look_into(image), formula) for image in images_of(row)) if formula else 0

    def _blind(self) -> str:
        able = ", ".join(known for known, model in self.table.models.items() if self.method in model.sees)
        if able:
            allowed = f"allowed: {able}; use one of them, or take such rows out"
        else:
            methods = sorted({method for model in self.table.models.values() for method in model.sees})
            allowed = f"no model does; it takes images with method={' or '.join(methods)}; take such rows out"
        return (
            f"the row holds an image, which the service does not train {self.name} on with {self.method}; {allowed}; "
            "if that has changed, correct the table (backend.models=FILE)"
        )


def of(request: Request) -> FoundryVision:
    """Return what the model of a request makes of images."""
    table = catalogue(Foundry.of(request).models)
    return FoundryVision(table, models.hosted_name(request.model.source) or "", request.method)


def tokens_of(image: Image, content: Content | None, formula: ImageTokens) -> int:
    """Return how many tokens an image takes; of one at an address, whose size is not known, the most that it can."""
    if image.detail == "low":
        return formula.base
    # `auto` is the service's choice: what takes more is counted, so that no price is too low.
    return formula.base + formula.tile * (MOST_TILES if content is None else tiles(content.width, content.height))


def tiles(width: int, height: int) -> int:
    """Return in how many squares an image of so many pixels is counted: 4 for 1024 x 1024, 6 for 2048 x 4096."""
    # Integers: 1/3 of 768 pixels must not become another tile by a rounding error.
    if max(width, height) > LONGEST:
        width, height = (max(1, side * LONGEST // max(width, height)) for side in (width, height))
    if min(width, height) > SHORTEST:
        width, height = (side * SHORTEST // min(width, height) for side in (width, height))
    return ceil(width / TILE) * ceil(height / TILE)


def check(table: Catalogue, survey: Survey) -> None:
    """Raise `DataError` for a file with more rows that hold images than the service takes."""
    for split, rows in survey.splits.items():
        if table.images is not None and rows.with_images > table.images.rows:
            raise DataError(
                f"dataset.{split}: {rows.with_images:,} of its rows hold images; the service takes up to "
                f"{table.images.rows:,} in a file; set dataset.max_rows, or take rows out."
            )


def forecast(table: Catalogue, model: Model | None, rows: int) -> Iterator[tuple[str, str]]:
    """Yield how images are counted, where rows hold some."""
    if not rows:
        return
    formula = model.image_tokens if model else None
    if formula is None:
        yield "images", f"{rows:,} rows hold some, whose tokens are not counted: the table has no formula for the model"
        return
    most = formula.base + formula.tile * MOST_TILES
    yield (
        "images",
        f"{rows:,} rows hold some, counted as {formula.base} tokens with detail=low, else {formula.base} and "
        f"{formula.tile} for each square of {TILE} pixels once scaled down; at an address as {most:,}, the most"
        f"{table.said('images')}",
    )
