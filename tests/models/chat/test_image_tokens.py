"""A row with images as tokens: those of transformers' processor, each image in its place, and nothing else like one."""

import shutil
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from runner.data.images import Image
from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.kinds.problem import Problem
from runner.data.rows import Message, Row
from runner.errors import DataError
from runner.models.chat.image_tokens import IdsWithImages, images_among, runs
from runner.models.chat.shown_row import shown_row
from runner.models.chat.tokenizer import ChatTokenizer
from tests.pictures import picture

SMALL, LARGE, JPEG = picture(40, 30), picture(100, 64, shade=200), picture(333, 20, "JPEG")
PLACEHOLDER = "<|image_pad|>"


def asks(text: str, *images: Image) -> Message:
    return Message("user", text, images=images)


CONVERSATION = Conversation(
    (
        asks("How is it? And this?", Image(SMALL), Image(LARGE, at=10)),
        Message("assistant", "Fresh."),
        asks("Bread", Image(JPEG, at=5)),
        Message("assistant", "Blue light."),
    )
)
PAIR = Pair(CONVERSATION.question, (Message("assistant", "Blue light."),), (Message("assistant", "Blue cloth."),))


@pytest.fixture(scope="module")
def tokenizer(seeing_model: Path) -> ChatTokenizer:
    return ChatTokenizer(seeing_model, sees=True)


def rendered(folder: Path, row: Row, number: int = 0) -> list[int]:
    """Return the ids of an answer with its prompt as Qwen2-VL's processor of transformers makes them.

    By its image processor and its way of writing an image; as a whole it wants torchvision, for videos.
    """
    from transformers import AutoImageProcessor, AutoTokenizer
    from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

    library: Any = AutoTokenizer
    theirs, images = library.from_pretrained(folder), list[Any]()
    processor: Any = object.__new__(Qwen2VLProcessor)
    processor.image_processor, processor.image_token = AutoImageProcessor.from_pretrained(folder), PLACEHOLDER
    chat = []
    for turn in row.learned()[number].messages:
        content: Any = turn.parts
        if not isinstance(content, str):
            for part in content:
                if part["type"] == "image_url":
                    encoded = part.pop("image_url")["url"].partition(",")[2]
                    images.append(Pillow.open(BytesIO(b64decode(encoded))).convert("RGB"))
                    part["type"] = "image"
        chat.append({"role": turn.role, "content": content})
    text = theirs.apply_chat_template(chat, tokenize=False)
    seen = processor.image_processor(images=images, return_tensors="pt")
    first, *others = text.split(PLACEHOLDER)
    text = first + "".join(processor.replace_image_token(seen, at) + other for at, other in enumerate(others))
    found: list[int] = theirs(text, add_special_tokens=False)["input_ids"]
    return found


@pytest.mark.parametrize("row", [CONVERSATION, PAIR])
def test_the_tokens_are_those_of_transformers_and_each_image_has_its_own(
    row: Row, tokenizer: ChatTokenizer, seeing_model: Path
) -> None:
    found = tokenizer.row(row)
    for number, answer in enumerate(found.answers):
        assert found.prompt + answer == rendered(seeing_model, row, number)
    ids = found.prompt + found.answers[0]
    assert [each.image.url for each in found.images] == [SMALL, LARGE, JPEG]
    assert [each.num_tokens for each in found.images] == [4, 24, 21]
    places = [place for each in found.images for place in range(each.start, each.end)]
    assert places == [place for place, token in enumerate(ids) if token == tokenizer.placeholder]
    learned = [token for token, is_learned in zip(found.answers[0], found.learned[0], strict=True) if is_learned]
    assert tokenizer.placeholder not in learned


def test_a_prompt_carries_its_images_and_its_parts_follow_each_other(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode_prompt(Problem(CONVERSATION.question).given)
    assert isinstance(ids, IdsWithImages)
    images = images_among(ids)
    parts = list(runs(ids, images))
    assert [each for each in parts if not isinstance(each, list)] == list(images)
    written = [each if isinstance(each, list) else ids[each.start : each.end] for each in parts]
    assert [token for each in written for token in each] == ids
    # A text and an image in turn, and what is behind the last one.
    assert [isinstance(each, list) for each in parts] == [True, False] * 3 + [True]
    assert images_among(tokenizer.encode("Blue")) == ()


def test_a_row_is_not_cut_within_an_image(tokenizer: ChatTokenizer) -> None:
    whole = tokenizer.row(CONVERSATION)
    end = whole.images[-1].end
    assert tokenizer.row(CONVERSATION, end).images == whole.images
    with pytest.raises(DataError, match=f"backend.max_length={end - 1} cuts the row before the end of its last image"):
        tokenizer.row(CONVERSATION, end - 1)
    assert tokenizer.counts([CONVERSATION], 1000) == [len(whole.prompt) + len(whole.answers[0])]


def test_a_placeholder_in_somebodys_words_is_no_image(tokenizer: ChatTokenizer) -> None:
    answer = Message("assistant", "Blue.")
    with pytest.raises(DataError, match=r"the text has <\|image_pad\|> 1 times for 0 images"):
        tokenizer.row(Conversation((Message("user", f"What is {PLACEHOLDER}?"), answer)))
    with pytest.raises(DataError, match=r"the text has <\|image_pad\|> 2 times for 1 images"):
        tokenizer.row(Conversation((asks(f"What is {PLACEHOLDER}?", Image(SMALL)), answer)))


def test_a_template_that_leaves_images_out_is_refused(seeing_model: Path, tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    shutil.copytree(seeing_model, blind)
    text = (blind / "chat_template.jinja").read_text("utf-8").replace(PLACEHOLDER, "")
    (blind / "chat_template.jinja").write_text(text, "utf-8")
    with pytest.raises(DataError, match=r"the text has <\|image_pad\|> 0 times for 3 images"):
        ChatTokenizer(blind, sees=True).row(CONVERSATION)


def test_an_image_at_an_address_and_one_that_is_too_long_are_refused(tokenizer: ChatTokenizer) -> None:
    answer = Message("assistant", "Blue.")
    away = Conversation((asks("?", Image("https://example.com/oak.png?key=1")), answer))
    with pytest.raises(DataError, match=r"the image https://example.com/oak.png is at an address; give its content"):
        tokenizer.row(away)
    with pytest.raises(DataError, match="is 2001 x 10 pixels, one side more than 200 times the other; cut it"):
        tokenizer.row(Conversation((asks("?", Image(picture(2001, 10))), answer)))


def test_without_sight_the_same_folder_refuses_images_and_has_other_tokens_in_the_cache(
    tokenizer: ChatTokenizer, seeing_model: Path
) -> None:
    blind = ChatTokenizer(seeing_model)
    with pytest.raises(DataError, match="a prompt holds an image, which a model here does not see"):
        blind.row(CONVERSATION)
    assert blind.digest != tokenizer.digest


def test_a_model_without_images_has_the_same_tokens_in_the_cache_whoever_asks(tiny_model: Path) -> None:
    assert ChatTokenizer(tiny_model).digest == ChatTokenizer(tiny_model, sees=True).digest


def test_shown_to_people_an_image_is_one_placeholder_with_its_number_of_tokens(tokenizer: ChatTokenizer) -> None:
    found = shown_row(tokenizer, PAIR, 1000)
    assert f"<|vision_start|>{PLACEHOLDER}×4<|vision_end|>How is it?" in found.prompt
    assert found.prompt.count(PLACEHOLDER) == 3
    whole = shown_row(tokenizer, CONVERSATION, 1000)
    assert f"Bread<|vision_start|>{PLACEHOLDER}×21<|vision_end|>" in "".join(each.text for each in whole.answers[0])
