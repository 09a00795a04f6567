"""Images as data sets have them: in a column next to the turns, in parts, in files; where they are in the turns."""

import json
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from runner.data.images import Image
from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.quality.vision import images_of
from runner.data.rows import Message, Row
from tests.data.samples import look, reported, rows_of, write_lines
from tests.pictures import part, picture

OAK, ELM = picture(8, 8), picture(9, 9, "JPEG", shade=3)
PLACE = {"type": "image"}
ANSWER = {"role": "assistant", "content": "An oak."}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content) if not isinstance(content[0], str) else content[0]}


def oak(turn: str, *images: Image) -> Conversation:
    return Conversation((Message("user", turn, images=images), Message("assistant", "An oak.")))


def content_of(uri: str) -> bytes:
    return b64decode(uri.partition(",")[2])


BOTH = oak("Is it an oak?", Image(OAK), Image(ELM, at=6))
CONVERSATIONS: dict[str, tuple[dict[str, Any], Row]] = {
    "places in parts": (
        {"images": [OAK, ELM], "messages": [user(PLACE, text("Is it "), PLACE, text("an oak?")), ANSWER]}, BOTH),
    "padded as tables are": (
        {"images": [OAK, ELM], "image": None, "messages": [user(
            {"type": "image", "text": None}, {"type": "text", "text": "Is it ", "image": None}, PLACE, text("an oak?")
        ), ANSWER]}, BOTH),
    "marks in the text": ({"images": [OAK, ELM], "messages": [user("<image>Is it <image>an oak?"), ANSWER]}, BOTH),
    "no place": ({"images": [OAK, ELM], "messages": [user("Is it an oak?"), ANSWER]},
                 oak("Is it an oak?", Image(OAK), Image(ELM))),
    "ShareGPT": (
        {"images": [OAK, ELM], "conversations": [{"from": "human", "value": "<image>Is it <image>an oak?"},
                                                 {"from": "gpt", "value": "An oak."}]}, BOTH),
    "one image": ({"image": OAK, "prompt": "Is it an oak?", "completion": "An oak."}, oak("Is it an oak?", Image(OAK))),
    "of the question, not the answer": (
        {"images": [OAK], "messages": [user("<image>?"), {"role": "assistant", "content": "An <image>."}]},
        Conversation((Message("user", "?", images=(Image(OAK),)), Message("assistant", "An <image>.")))),
    "parts that hold them": (
        {"messages": [user(
            {"type": "image", "image": OAK}, text("Is it "), {"type": "image", "url": ELM}, text("an oak?")
        ), ANSWER]}, BOTH),
    "base64": ({"messages": [user({"type": "image", "base64": OAK.partition(",")[2]}, text("?")), ANSWER]},
               oak("?", Image(OAK))),
    "as services have them": ({"messages": [user(part(OAK), text("?")), ANSWER], "images": []}, oak("?", Image(OAK))),
}  # fmt: skip


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_a_conversations_images_are_in_their_places(case: str, tmp_path: Path) -> None:
    row, expected = CONVERSATIONS[case]
    write_lines(path := tmp_path / "data.jsonl", [row])
    assert rows_of(path, "conversation") == [expected]
    assert look(path, "conversation").refused == 0


GOOD, BAD = {"role": "assistant", "content": "An oak."}, {"role": "assistant", "content": "An elm."}
PAIRS: dict[str, dict[str, Any]] = {
    "a prompt as turns": {"images": [OAK], "prompt": [user("Which?")], "chosen": [GOOD], "rejected": [BAD]},
    "a prompt as text": {"images": [OAK], "prompt": "Which?", "chosen": "An oak.", "rejected": "An elm."},
    "both with the prompt": {"images": [OAK], "chosen": [user(PLACE, text("Which?")), GOOD],
                             "rejected": [user(PLACE, text("Which?")), BAD]},
    "both without a place": {"images": [OAK], "chosen": [user("Which?"), GOOD], "rejected": [user("Which?"), BAD]},
    "ShareGPT": {"images": [OAK], "conversations": [{"from": "human", "value": "<image>Which?"}],
                 "chosen": {"from": "gpt", "value": "An oak."}, "rejected": {"from": "gpt", "value": "An elm."}},
    "Foundry's": {"input": {"messages": [user({"type": "image", "image": OAK}, text("Which?"))]},
                  "preferred_output": [GOOD], "non_preferred_output": [BAD]},
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS)
def test_a_pairs_images_are_in_its_prompt(case: str, tmp_path: Path) -> None:
    write_lines(path := tmp_path / "data.jsonl", [PAIRS[case]])
    question = (Message("user", "Which?", images=(Image(OAK),)),)
    assert rows_of(path, "preference") == [
        Pair(question, (Message("assistant", "An oak."),), (Message("assistant", "An elm."),))
    ]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_files_of_images_are_relative_to_the_datas_file_and_read(ending: str, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name, uri in (("oak.png", OAK), ("elm.jpg", ELM)):
        (tmp_path / "pictures" / name).write_bytes(content_of(uri))
    named = ["pictures/oak.png", str(tmp_path / "pictures" / "elm.jpg"), f"file://{tmp_path}/pictures/oak.png"]
    rows = [{"prompt": f"{number}?", "completion": "An oak.", "image": name} for number, name in enumerate(named)]
    path = tmp_path / f"data.{ending}"
    if ending == "json":
        path.write_text(json.dumps(rows), "utf-8")
    elif ending == "csv":
        path.write_text("".join(",".join(each) + "\n" for each in [list(rows[0]), *map(dict.values, rows)]), "utf-8")
    elif ending == "parquet":
        pyarrow = pytest.importorskip("pyarrow.parquet")
        table = pytest.importorskip("pyarrow").Table.from_pylist(rows)
        pyarrow.write_table(table, path)
    else:
        write_lines(path, rows)
    assert [images_of(row) for row in rows_of(path, "conversation")] == [[Image(OAK)], [Image(ELM)], [Image(OAK)]]


def test_images_as_datasets_writes_them_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from PIL import Image as Pillow

    pictures = [Pillow.open(BytesIO(content_of(OAK))), Pillow.open(BytesIO(content_of(ELM)))]
    messages = [[user(PLACE, text("Which?")), {"role": "assistant", "content": [text("An oak.")]}]] * 2
    made = datasets.Dataset.from_dict({"images": [[each] for each in pictures], "messages": messages})
    made = made.cast_column("images", datasets.List(datasets.Image()))
    made.to_parquet(path := tmp_path / "data.parquet")
    assert [images_of(row) for row in rows_of(path, "conversation")] == [[Image(OAK)], [Image(ELM)]]


REFUSED = {
    "fewer places": ({"images": [OAK, ELM], "messages": [user(PLACE, text("?")), ANSWER]},
                     "the row has 2 images, and `messages` has 1 places for them; give one to each"),
    "a place too many": ({"messages": [user(PLACE, text("?")), ANSWER]},
                         "a content has a place for an image, and the row has no image for it; give it in `images`"),
    "no file": ({"images": ["oak.png"], "messages": [user("?"), ANSWER]},
                "the image oak.png cannot be read (No such file or directory); paths are relative to the data's file; "
                "fix it"),
    "another file": ({"images": ["data.jsonl"], "messages": [user("?"), ANSWER]},
                     "the image data.jsonl is no JPEG, PNG or WEBP; convert it, or leave the row out"),
    "no file of ShareGPT": (
        {"images": ["data:image/gif;base64,R0lG"], "conversations": [{"from": "human", "value": "<image>?"},
                                                                     {"from": "gpt", "value": "An oak."}]},
        "the image data:image/gif;base64,R0lG begins with 'data:image/gif;base64'; allowed: data:image/jpeg;base64,…, "
        "data:image/png;base64,…, data:image/webp;base64,…; convert it, or leave the row out"),
    "a turn that is no text": (
        {"images": [OAK], "messages": [{"role": "user", "content": None}, {"role": "assistant", "content": 7}]},
        "`messages[1].content` is an integer; allowed: text or null; change it"),
    "no image": ({"images": [7], "messages": [user("?"), ANSWER]},
                 "an image is 7; allowed: an address, a file's path or its content"),
    "nowhere to put it": (
        {"images": [OAK], "instruction": "Which?", "output": "An oak."},
        "the key `images` holds what is not text; only text is learned; leave the row or the key out"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_with_a_rows_images_is_said_with_its_line(case: str, tmp_path: Path) -> None:
    row, sentence = REFUSED[case]
    write_lines(path := tmp_path / "data.jsonl", [row])
    [error] = reported(look(path, "conversation"), tmp_path)
    assert error.endswith(f" data.jsonl:1: {sentence}")


def test_of_data_from_elsewhere_no_file_of_this_machine_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.data import sources
    from runner.data.sources import Source

    (tmp_path / "oak.png").write_bytes(content_of(OAK))
    write_lines(path := tmp_path / "cached.jsonl", [{"images": ["oak.png"], "messages": [user("?"), ANSWER]}])

    class Elsewhere(Source):
        """A hub of one file."""

        def files(self, name: str) -> list[tuple[str, Path]]:
            """Return the file."""
            return [("far:data.jsonl", path)]

    monkeypatch.setattr(sources, "of", lambda name: Elsewhere() if name.startswith("far:") else None)
    found = look(Path("far:data.jsonl"), "conversation")
    assert [str(each) for each in found.errors] == [
        "far:data.jsonl:1: the image oak.png is named by a path, and the data is not of this machine; give its content "
        "(data:image/png;base64,…) or its address"
    ]


def test_the_content_of_a_file_is_what_a_row_is(tmp_path: Path) -> None:
    write_lines(path := tmp_path / "data.jsonl", [{"image": "oak.png", "prompt": "?", "completion": "An oak."}])
    fingerprints = set()
    for uri in (OAK, ELM, OAK):
        (tmp_path / "oak.png").write_bytes(content_of(uri))
        fingerprints.add(look(path, "conversation").splits["train"].fingerprint)
    assert len(fingerprints) == 2
    assert b64encode(content_of(OAK)).decode() in OAK
