"""How models take images: what stands for one in their text, and how many tokens it takes, known from its size alone.

Each family of image processors is a file here, named as transformers names the family. Nothing of transformers is
imported: a plan counts tokens without it, and without torch.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar

import msgspec

from runner.errors import ModelError

# transformers writes the first file with a processor as a whole, the second with an image processor alone.
WHOLE, ALONE = "processor_config.json", "preprocessor_config.json"


@dataclass(frozen=True)
class ImageProcessor(ABC):
    """What a model's image processor makes of an image; the fields of a family are the keys of its settings.

    A subclass says `kind = "Qwen2VLImageProcessor"`: the `image_processor_type` of the settings.
    """

    kind: ClassVar[str]
    placeholder: ClassVar[str]
    """The special token that a chat template writes once for an image, and that its text has once for each token."""

    @abstractmethod
    def num_tokens(self, width: int, height: int) -> int:
        """Return how many tokens an image of so many pixels takes. Raises `ValueError` for a shape that is refused."""

    def written(self, num_tokens: int) -> str:
        """Return the text of an image of so many tokens."""
        return self.placeholder * num_tokens


class _Named(msgspec.Struct):
    image_processor_type: str = ""


class _Whole(msgspec.Struct):
    image_processor: msgspec.Raw = msgspec.Raw(b"{}")


def find(folder: Path) -> ImageProcessor:
    """Return the image processor of a model's folder. Raises `ModelError` where it has none, or one of another family.

    A model without one sees no images.
    """
    settings = _settings(folder)
    if settings is None:
        raise ModelError(
            f"{folder.name}: the model sees no images: it comes without {ALONE}; take rows with images out, or choose "
            "a model that sees."
        )
    # transformers has a fast variant of most, and one without torchvision, which count the same.
    kind = re.sub(r"(Fast|Pil)$", "", msgspec.json.decode(settings, type=_Named).image_processor_type)
    families = {each.kind: each for each in _families()}
    if kind not in families:
        raise ModelError(
            f"{folder.name}: how many tokens an image takes is not known for the model's image processor, "
            f"{kind or 'which has no name'}; known: {', '.join(sorted(families))}; take rows with images out, or "
            "choose a model with one of these."
        )
    try:
        return msgspec.json.decode(settings, type=families[kind])
    except msgspec.ValidationError as error:
        raise ModelError(f"{folder.name}: the settings of the image processor cannot be read: {error}.") from error


def sees(folder: Path) -> bool:
    """Say whether a model's folder describes one that sees images, with or without its image processor."""
    path = folder / "config.json"
    return path.exists() and "vision_config" in msgspec.json.decode(path.read_bytes())


def digest(folder: Path) -> str:
    """Return the sha256 of an image processor's settings; empty where a folder has none."""
    settings = _settings(folder)
    return "" if settings is None else sha256(settings).hexdigest()


def _settings(folder: Path) -> bytes | None:
    if (folder / ALONE).exists():
        return (folder / ALONE).read_bytes()
    if not (folder / WHOLE).exists():
        return None
    found = msgspec.json.decode((folder / WHOLE).read_bytes(), type=_Whole).image_processor
    return None if bytes(found) == b"{}" else bytes(found)


@cache
def _families() -> list[type[ImageProcessor]]:
    return [import_module(f"{__name__}.{each.name}").PROCESSOR for each in iter_modules(__path__)]
