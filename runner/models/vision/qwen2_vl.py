"""Qwen2-VL's image processor, which Qwen2.5-VL, Qwen3-VL, Qwen3.5 and Qwen3.6 have, too.

An image is scaled to whole blocks of `patch_size` x `merge_size` pixels, each of which is a token (Wang et al. 2024,
arXiv:2409.12191, section 2.1).
"""

from dataclasses import dataclass, field
from math import ceil, floor, sqrt
from typing import ClassVar

from runner.models.vision import ImageProcessor

MOST_STRETCHED = 200
"""Sides that differ by a larger factor are refused."""


@dataclass(frozen=True)
class Qwen2VL(ImageProcessor):
    """The settings that decide how many tokens an image takes; the defaults are transformers'."""

    kind: ClassVar[str] = "Qwen2VLImageProcessor"
    placeholder: ClassVar[str] = "<|image_pad|>"
    patch_size: int = 14
    merge_size: int = 2
    size: dict[str, int] = field(default_factory=dict)
    # Qwen2-VL's own settings have these two in place of `size`, and they count where both are there.
    min_pixels: int | None = None
    max_pixels: int | None = None

    def num_tokens(self, width: int, height: int) -> int:
        """Return how many blocks the scaled image has."""
        if max(width, height) > MOST_STRETCHED * min(width, height):
            raise ValueError(
                f"is {width} x {height} pixels, one side more than {MOST_STRETCHED} times the other; cut it"
            )
        block = self.patch_size * self.merge_size
        least = self.min_pixels or self.size.get("shortest_edge", 56 * 56)
        most = self.max_pixels or self.size.get("longest_edge", 28 * 28 * 1280)
        # round() takes the even neighbour of a half, as the processor does.
        rows, columns = round(height / block), round(width / block)
        if rows * columns * block**2 > most:
            scale = sqrt(width * height / most)
            return max(1, floor(height / scale / block)) * max(1, floor(width / scale / block))
        if rows * columns * block**2 < least:
            scale = sqrt(least / (width * height))
            return ceil(height * scale / block) * ceil(width * scale / block)
        return rows * columns


PROCESSOR = Qwen2VL
