"""Images in a model's text and among its tokens: which of these stand for which image."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from runner.data.images import Content, Image, look_into
from runner.data.json_value import Json
from runner.errors import DataError
from runner.models.vision import ImageProcessor


class PlacedImage(NamedTuple):
    """An image, and the tokens of a sequence that stand for it: so many from `start` on."""

    start: int
    num_tokens: int
    image: Image

    @property
    def end(self) -> int:
        """The place of the first token after it."""
        return self.start + self.num_tokens


class IdsWithImages(list[int]):
    """The token ids of a prompt with images, of which some tokens stand for these."""

    def __init__(self, ids: Sequence[int], images: Sequence[PlacedImage]) -> None:
        super().__init__(ids)
        self.images = tuple(images)


def images_among(ids: Sequence[int]) -> tuple[PlacedImage, ...]:
    """Return the images of a prompt's ids, most of which have none."""
    return ids.images if isinstance(ids, IdsWithImages) else ()


def runs(ids: Sequence[int], images: Sequence[PlacedImage]) -> Iterator[list[int] | PlacedImage]:
    """Yield the ids between images, and the images in their places."""
    start = 0
    for image in images:
        if image.start > start:
            yield list(ids[start : image.start])
        yield image
        start = image.end
    if start < len(ids):
        yield list(ids[start:])


def chunks(ids: Sequence[int], images: Sequence[PlacedImage], text: str) -> list[Json]:
    """Return ids, some of which stand for images, as services take them in JSON; `text` is the type of a chunk of ids.

    Sources: `ModelInput` of the packages azure-ai-finetuningsessions 1.0.0b1 and tinker 0.38.
    """
    return [_chunk(part, text) for part in runs(ids, images)]


def _chunk(part: list[int] | PlacedImage, text: str) -> Json:
    if isinstance(part, PlacedImage):
        image = part.image
        return {"type": "image", "data": image.base64, "format": image.format, "expected_tokens": part.num_tokens}
    tokens: list[Json] = [*part]
    return {"type": text, "tokens": tokens}


def num_tokens(image: Image, processor: ImageProcessor) -> int:
    """Return how many tokens an image takes. Raises `DataError` where that cannot be known, or it is refused."""
    # Of the row's own content: what is at an address may be another image tomorrow.
    size = _size(image)
    if size is None:
        raise DataError(f"the image {image.name} is at an address; give its content (data:image/png;base64,…).")
    try:
        return processor.num_tokens(size.width, size.height)
    except ValueError as error:
        raise DataError(f"the image {image.name} {error}.") from None


# A row is rendered some four times, and each time a base64 of megabytes would be decoded.
@lru_cache(maxsize=8)
def _size(image: Image) -> Content | None:
    return look_into(image)


def expanded(
    text: str, spans: Sequence[tuple[int, int]], images: Sequence[Image], processor: ImageProcessor
) -> tuple[str, list[tuple[int, int]]]:
    """Return a rendered text with each image's placeholder as often as it has tokens, and its spans moved along.

    Raises `DataError` where there are not as many placeholders as images.
    """
    before, *others = text.split(processor.placeholder)
    if len(others) != len(images):
        raise DataError(
            f"the text has {processor.placeholder} {len(others)} times for {len(images)} images; each of these is to "
            "be written once by the chat template, and none by a row's text: take it out of the text, or choose a "
            "model whose template writes images."
        )
    parts, ends, at = [before], list[tuple[int, int]](), len(before)
    for image, after in zip(images, others, strict=True):
        written = processor.written(num_tokens(image, processor))
        # From here on in the text as it was, everything is later by so many characters.
        at += len(processor.placeholder)
        ends.append((at, len(written) - len(processor.placeholder)))
        at += len(after)
        parts += [written, after]

    def moved(place: int) -> int:
        return place + sum(longer for end, longer in ends if end <= place)

    return "".join(parts), [(moved(start), moved(end)) for start, end in spans]


def placed(
    ids: Sequence[int], placeholder: int, images: Sequence[Image], processor: ImageProcessor
) -> tuple[PlacedImage, ...]:
    """Return which tokens of an expanded text stand for which image; of one that is cut off no place is known."""
    found, at = list[PlacedImage](), 0
    for image in images:
        count = num_tokens(image, processor)
        try:
            at = ids.index(placeholder, at)
        except ValueError:
            at = len(ids)  # behind the cut, where it has no room either
        found.append(PlacedImage(at, count, image))
        at += count
    return tuple(found)
