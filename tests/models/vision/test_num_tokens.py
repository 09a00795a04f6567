"""How many tokens an image takes is what transformers' own image processors make of it, size for size."""

import ast
import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runner.models.vision.muse_glimmer import MuseGlimmer
from runner.models.vision.qwen2_vl import Qwen2VL

SETTINGS: list[dict[str, Any]] = [
    {},
    {"patch_size": 16, "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}},  # Qwen3-VL's
    {"min_pixels": 3136, "max_pixels": 12_845_056},  # Qwen2-VL's
    {"min_pixels": 78_400, "max_pixels": 156_800, "size": {"shortest_edge": 1, "longest_edge": 2}},
]


def sizes() -> Iterator[tuple[int, int]]:
    chance = random.Random(0)
    for most in (30, 300, 6000):
        for _ in range(2000):
            width, height = chance.randint(1, most), chance.randint(1, most)
            yield from ((width, height), (width, width))  # squares fit several grids equally well


@pytest.mark.parametrize("settings", SETTINGS)
def test_qwen2_vl(settings: dict[str, Any]) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    theirs = Qwen2VLImageProcessorPil(**settings)
    ours = [msgspec.convert(settings, Qwen2VL), msgspec.json.decode(theirs.to_json_string(), type=Qwen2VL)]
    for width, height in sizes():
        try:
            expected = theirs.get_number_of_image_patches(height, width, {}) // theirs.merge_size**2
        except ValueError:
            for own in ours:
                with pytest.raises(ValueError, match="one side more than 200 times the other"):
                    own.num_tokens(width, height)
            continue
        assert [own.num_tokens(width, height) for own in ours] == [expected] * 2, (width, height)


@pytest.mark.parametrize("most", [4096, 20])
def test_muse_glimmer(most: int) -> None:
    resize = _function("muse_glimmer/image_processing_muse_glimmer.py", "smart_resize")
    ours = MuseGlimmer(max_image_tokens=most)
    for width, height in sizes():
        rows, columns = (side // 28 for side in resize(height, width, 28, most))
        assert ours.num_tokens(width, height) == rows * columns, (width, height)


def _function(path: str, name: str) -> Any:
    """Return a function of transformers without its module, which wants torchvision."""
    import transformers

    source = (Path(transformers.__file__).parent / "models" / path).read_text("utf-8")
    (found,) = (
        each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef) and each.name == name
    )  # fmt: skip
    names: dict[str, Any] = {"itertools": itertools, "math": math}
    exec(ast.get_source_segment(source, found) or "", names)
    return names[name]
