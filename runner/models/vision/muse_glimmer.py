"""Muse Glimmer's image processor: the grid of blocks that is nearest to the image's shape, of so many at most."""

from dataclasses import dataclass
from itertools import product
from math import ceil, floor
from typing import ClassVar

from runner.models.vision import ImageProcessor


@dataclass(frozen=True)
class MuseGlimmer(ImageProcessor):
    """The settings that decide how many tokens an image takes; the defaults are transformers'."""

    kind: ClassVar[str] = "MuseGlimmerImageProcessor"
    placeholder: ClassVar[str] = "<|patch|>"
    patch_size: int = 14
    merge_size: int = 2
    max_image_tokens: int = 4096

    def num_tokens(self, width: int, height: int) -> int:
        """Return how many blocks the grid has."""
        block = self.patch_size * self.merge_size
        rows, columns = height / block, width / block
        if rows * columns > self.max_image_tokens:
            ratio = columns / rows
            rows = (self.max_image_tokens / ratio) ** 0.5
            columns = rows * ratio
        # A set, as in transformers: of grids that are equally near, the first one in its order is taken.
        grids = {*product((floor(rows), ceil(rows)), (floor(columns), ceil(columns)))}
        fitting = [(r, c) for r, c in grids if r >= 1 and c >= 1 and r * c <= self.max_image_tokens]
        if not fitting:
            return max(1, round(rows)) * max(1, round(columns))
        r, c = min(fitting, key=lambda grid: abs(grid[0] / grid[1] - height / width))
        return r * c

    def written(self, num_tokens: int) -> str:
        """Return the text of an image, which begins and ends with a token of its own."""
        return f"<|image_start|>{super().written(num_tokens)}<|image_end|>"


PROCESSOR = MuseGlimmer
