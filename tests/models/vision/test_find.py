"""Which image processor a model's folder has, by the file that transformers has written for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner.errors import ModelError
from runner.models import vision
from runner.models.vision.qwen2_vl import Qwen2VL


def written(folder: Path, name: str, content: dict[str, Any]) -> Path:
    (folder / name).write_text(json.dumps(content), "utf-8")
    return folder


@pytest.mark.parametrize("kind", ["Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil"])
def test_variants_of_a_processor_count_alike(kind: str, tmp_path: Path) -> None:
    own = {"image_processor_type": kind, "patch_size": 16, "temporal_patch_size": 2, "min_pixels": 4, "max_pixels": 9}
    expected = Qwen2VL(patch_size=16, min_pixels=4, max_pixels=9)
    assert vision.find(written(tmp_path, "preprocessor_config.json", own)) == expected


def test_a_processor_as_a_whole_has_that_of_images_within_it(tmp_path: Path) -> None:
    whole = {
        "processor_class": "Qwen3VLProcessor",
        "image_processor": {"image_processor_type": "Qwen2VLImageProcessor"},
    }
    assert vision.find(written(tmp_path, "processor_config.json", whole)) == Qwen2VL()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("config.json", {}, "tiny: the model sees no images: it comes without preprocessor_config.json; take rows with "
         "images out, or choose a model that sees."),
        ("processor_config.json", {"processor_class": "A"}, "tiny: the model sees no images: it comes without"),
        ("preprocessor_config.json", {"image_processor_type": "SiglipImageProcessorFast"},
         "tiny: how many tokens an image takes is not known for the model's image processor, SiglipImageProcessor; "
         "known: MuseGlimmerImageProcessor, Qwen2VLImageProcessor; take"),
        ("preprocessor_config.json", {}, "tiny: how many tokens an image takes is not known for the model's image "
         "processor, which has no name; known:"),
        ("preprocessor_config.json", {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": "a"},
         "tiny: the settings of the image processor cannot be read: Expected `int`, got `str` - at `$.patch_size`."),
    ],
)  # fmt: skip
def test_a_model_that_sees_nothing_or_in_an_unknown_way_is_refused(
    name: str, content: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    with pytest.raises(ModelError) as refused:
        vision.find(written(folder, name, content))
    assert str(refused.value).startswith(sentence)
