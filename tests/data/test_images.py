"""Images in rows: read by every format, their text treated as ever, each looked into as far as it is here."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runner.data.images import Image, look_into
from runner.data.quality.vision import TextAlone
from runner.data.splits import Selection
from runner.data.survey import survey
from tests.data.samples import look, reported, rows_of, write_lines
from tests.pictures import ADDRESS, asked, conversation, part, picture

SMALL = picture()
GOOD, BAD = [{"role": "assistant", "content": "An oak."}], [{"role": "assistant", "content": "A fir."}]
PROMPT = asked("Which tree", part(SMALL, detail="low"), {"type": "text", "text": " is it?"}, part(ADDRESS))
LAYOUT = '{"type": "image_url", "image_url": {"url": …, "detail": "low", "high" or "auto"}}'


def written(folder: Path, *rows: Any) -> Path:
    write_lines(folder / "data.jsonl", rows)
    return folder / "data.jsonl"


def sent(row: Any) -> Any:
    return json.loads(msgspec.json.encode(row.wire()))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ({"messages": [*PROMPT, *GOOD]}, "conversation"),
        ({"input": {"messages": PROMPT}, "preferred_output": GOOD, "non_preferred_output": BAD}, "preference"),
        ({"messages": PROMPT, "reference": "An oak."}, "problem"),
    ],
    ids=["chat", "foundry", "problem"],
)
def test_a_row_with_images_is_sent_as_it_is_in_the_file(shape: dict[str, Any], kind: str, tmp_path: Path) -> None:
    [row] = rows_of(written(tmp_path, shape), kind)
    assert sent(row) == shape
    # The text is checked and counted as one without images is.
    assert (row.question[0].content, row.question[0].shown) == ("Which tree is it?", "Which tree[image] is it?[image]")


def test_the_same_images_in_another_shape_are_the_same_row(tmp_path: Path) -> None:
    trl = rows_of(written(tmp_path, {"prompt": PROMPT, "chosen": GOOD, "rejected": BAD}))
    hosted = {"input": {"messages": PROMPT}, "preferred_output": GOOD, "non_preferred_output": BAD}
    assert rows_of(written(tmp_path, hosted)) == trl


def test_an_image_without_a_word_is_a_prompt(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": [part(SMALL)]}, *GOOD]}
    path = written(tmp_path, row)
    assert reported(look(path, "conversation"), tmp_path) == []
    assert [sent(each) for each in rows_of(path, "conversation")] == [row]


def test_a_tool_with_a_parameter_called_like_the_key_of_images_holds_none(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"image_parts": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": "cut", "parameters": schema}}]
    path = written(tmp_path, {"messages": [{"role": "user", "content": "Cut it."}, *GOOD], "tools": tools})
    selection = Selection(train=str(path), kind="conversation")
    assert survey(selection, vision=TextAlone("local")).splits["train"].rows == 1


def test_images_distinguish_rows_and_prompts_and_rows_with_some_are_counted(tmp_path: Path) -> None:
    rows = [conversation(1, part(picture(shade=shade))) for shade in (0, 90)] + [conversation(2)]
    found = look(written(tmp_path, *rows), "conversation")
    assert reported(found, tmp_path) == []  # no prompt occurs twice
    assert (found.splits["train"].rows, found.splits["train"].with_images) == (3, 2)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (asked("?", part(picture(format="GIF"))),
         "the image data:image/gif;base64,R0lGODdh… begins with 'data:image/gif;base64'; allowed: "
         "data:image/jpeg;base64,…, data:image/png;base64,…, data:image/webp;base64,…; convert it, or leave the row "
         "out"),
        (asked("?", part(picture(format="JPEG", media="png"))),
         "the image data:image/png;base64,/9j/4AAQ… is named image/png, and its first bytes are a JPEG's; write "
         "image/jpeg"),
        (asked("?", part(picture(mode="L"))),
         "the image data:image/png;base64,iVBORw0K… has the mode L; allowed: RGB or RGBA; convert it"),
        (asked("?", part("data:image/png;base64,iVBORw0K!")),
         "the image data:image/png;base64,iVBORw0K… is no base64 (Only base64 data is allowed); encode the file's "
         "bytes again"),
        (asked("?", part("data:image/png;base64,Tm90aGluZw==")),
         "the image data:image/png;base64,Tm90aGlu… holds no JPEG, PNG or WEBP, though it is named image/png; encode "
         "the file again"),
        (asked("?", part("oak.png")),
         "the image oak.png is no image; allowed: an address (https://…) or data:image/png;base64,…; give a file's "
         "content so, or put it on a web server"),
        (asked("?", part(SMALL, detail="full")),
         f"an image cannot be read (Invalid enum value 'full' - at `$.detail`); allowed: {LAYOUT}; write it so"),
        (asked("?", {"type": "image_url", "image_url": SMALL}),
         f"an image cannot be read (Expected `object`, got `str`); allowed: {LAYOUT}; write it so"),
        (asked("?", part(SMALL) | {"cache_control": {}}), f"an image has other keys than {LAYOUT}; leave them out"),
        ([{"role": "system", "content": [part(SMALL)]}, {"role": "user", "content": "?"}],
         "a turn of the system holds an image; only the user's may; move it there"),
    ],
    ids=["GIF", "another format", "grey", "no base64", "no image", "a path", "detail", "a text", "a key", "a role"],
)  # fmt: skip
def test_an_image_that_no_service_takes_is_refused_with_its_line(turn: list[Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, conversation(1), {"messages": [*turn, *GOOD]})
    assert reported(look(path, "conversation"), tmp_path) == [f"error image data.jsonl:2: {message}"]
    assert len(rows_of(path, "conversation")) == 1  # what dataset.on_bad_row=skip trains on


def test_an_address_is_named_without_what_may_be_a_key() -> None:
    image = Image("https://user:secret@example.com/oak.png?sig=secret", "low")
    assert (image.name, look_into(image)) == ("https://example.com/oak.png", None)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_of_an_image_in_the_row_size_and_bytes_are_known(format: str) -> None:
    found = look_into(Image(picture(30, 20, format)))
    assert found is not None
    assert (found.width, found.height) == (30, 20)
    assert found.num_bytes > 20
