"""Rows with images for hosted jobs: what a plan refuses and counts, and what is sent."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from runner import api, backends, planning
from runner.backends.foundry import vision
from runner.backends.foundry.catalogue import ImageTokens
from runner.data.images import Content, Image
from runner.errors import DataError
from tests.data.samples import write_lines
from tests.emulator import Emulator
from tests.hosted.rehearsal import DEPLOYED, carry_out, planned
from tests.pictures import ADDRESS, asked, conversation, part, picture, write_conversations

OF_GPT_4 = ImageTokens(base=85, tile=170)
SEEING = ("method=sft", "model.source=hosted:gpt-4.1", "sft.n_epochs=1", "sft.batch_size=4")


def request(folder: Path, *overrides: str) -> list[str]:
    return [
        "dataset=files", "mode=plan", f"dataset.train={folder}/train.jsonl", "dataset.validation_fraction=0",
        f"runs_folder={folder}/runs", "evaluation.samples=0", *(overrides or ("backend=foundry", *SEEING)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "height", "detail", "tokens"),
    [
        (1024, 1024, "high", 765),
        (2048, 4096, "high", 1105),
        (4096, 8192, "low", 85),
        (512, 512, "auto", 255),
        (3000, 1, None, 765),
    ],
)
def test_the_tokens_of_an_image_are_those_of_the_vendors_examples(
    width: int, height: int, detail: Any, tokens: int
) -> None:
    # The first three: https://platform.openai.com/docs/guides/images-vision#calculating-costs
    assert vision.tokens_of(Image("data:", detail), Content(width, height, 1), OF_GPT_4) == tokens


def test_an_image_at_an_address_counts_as_the_most_that_one_can() -> None:
    sizes = [(side, other) for side in range(1, 5000, 97) for other in range(1, 5000, 89)]
    most = max(vision.tokens_of(Image("data:"), Content(*size, 1), OF_GPT_4) for size in sizes)
    assert vision.tokens_of(Image(ADDRESS), None, OF_GPT_4) == most == 1445
    assert vision.tokens_of(Image(ADDRESS, "low"), None, OF_GPT_4) == 85


def test_images_are_in_the_tokens_the_price_and_the_plan(tmp_path: Path) -> None:
    pytest.importorskip("rs_bpe")
    path = tmp_path / "train.jsonl"
    write_lines(path, [conversation(number) for number in range(10)])
    bare = planning.count_tokens(api.plan(*request(tmp_path)))
    rows = [conversation(number, part(picture(600, 400))) for number in range(8)]
    write_lines(path, [*rows, conversation(8, part(ADDRESS, detail="low")), conversation(9, part(ADDRESS))])
    proposal = api.plan(*request(tmp_path))
    counted = planning.count_tokens(proposal)
    assert bare is not None
    assert counted is not None
    assert counted.splits["train"] - bare.splits["train"] == 8 * (85 + 2 * 170) + 85 + 1445
    forecast = dict(backends.of(proposal.run).forecast(proposal, counted))
    assert forecast["images"].startswith(
        "10 rows hold some, counted as 85 tokens with detail=low, else 85 and 170 for each square of 512 pixels once "
        "scaled down; at an address as 1,445, the most (read "
    )
    [note] = [group for group in proposal.survey.findings if group.rule == "image-address"]
    assert note.sentence == (
        f"note: {path}:9: the image {ADDRESS} is not fetched: that it is there, its format and its size, only the "
        "service checks  (and 1 more of this kind)"
    )


PAIR = {
    "input": {"messages": asked("Which tree is it?", part(ADDRESS))},
    "preferred_output": [{"role": "assistant", "content": "An oak."}],
    "non_preferred_output": [{"role": "assistant", "content": "A fir."}],
}


@pytest.mark.parametrize(
    ("row", "overrides", "message"),
    [
        (
            conversation(1, part(picture())),
            ("backend=foundry", "method=sft", "model.source=hosted:gpt-4.1-mini"),
            "the row holds an image, which the service does not train gpt-4.1-mini on with sft; allowed: gpt-4.1, "
            "gpt-4o; use one of them, or take such rows out; if that has changed, correct the table "
            "(backend.models=FILE).",
        ),
        (
            PAIR,
            ("backend=foundry", "method=dpo", "model.source=hosted:gpt-4.1"),
            "the row holds an image, which the service does not train gpt-4.1 on with dpo; no model does; it takes "
            "images with method=sft; take such rows out; if that has changed, correct the table (backend.models=FILE).",
        ),
        (
            conversation(1, *[part(ADDRESS)] * 65),
            (),
            "the row has 65 images; the service takes 64 of one row; divide it.",
        ),
        (
            conversation(1, part(ADDRESS)),
            ("backend=local", "method=sft"),
            f"the row holds an image ({ADDRESS}), and backend=local trains on text alone; take such rows out, or use "
            "backend=foundry, foundry_sessions or tinker with a model that sees.",
        ),
        (
            conversation(1, part(ADDRESS)),
            ("backend=tinker", "method=sft", "model.source=tinker:Qwen/Qwen3-8B"),
            f"the image {ADDRESS} is at an address, and sessions take the content of images alone; write "
            "data:image/png;base64,… in its place, or use backend=foundry.",
        ),
    ],
    ids=["a model that does not see", "a method", "too many", "here", "tinker"],
)
def test_what_a_backend_does_not_train_on_is_refused_by_file_and_line(
    row: Any, overrides: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    plain = PAIR | {"input": {"messages": asked("Which tree?")}} if row is PAIR else conversation(0)
    write_lines(tmp_path / "train.jsonl", [plain, row])
    with pytest.raises(DataError) as caught:
        api.plan(*request(tmp_path, *overrides))
    assert str(caught.value).startswith(f"{tmp_path}/train.jsonl:2: {message}")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"rows": 10}, "dataset.train: 12 of its rows hold images; the service takes up to 10 in a file"),
        (
            {"bytes": 60},
            "the image data:image/png;base64,iVBORw0K… has 6[0-9] bytes; the service takes up to 60; make it",
        ),
    ],
)
def test_the_limits_of_a_table_of_ones_own_hold(limits: dict[str, int], message: str, tmp_path: Path) -> None:
    write_conversations(tmp_path / "train.jsonl", 12)
    table = {"models": {"gpt-4.1": {"methods": ["sft"], "sees": ["sft"]}}, "date": "2026-11", "source": ""}
    images = {"per_row": 64, "bytes": 1000, "rows": 50} | limits
    (tmp_path / "models.yaml").write_text(json.dumps(table | {"images": images}))
    with pytest.raises(DataError, match=message):
        api.plan(*request(tmp_path, "backend=foundry", *SEEING, f"backend.models={tmp_path}/models.yaml"))


def test_rows_with_images_are_sent_unchanged_and_the_models_are_asked_with_them(
    cloud: Emulator, tmp_path: Path
) -> None:
    rows = write_conversations(tmp_path / "train.jsonl", 12)
    held_out = write_conversations(tmp_path / "held_out.jsonl", 2, first=12)
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *SEEING, DEPLOYED))
    assert ended.code == 0, ended.message
    assert [json.loads(line) for line in cloud.created_files[0].content.splitlines()] == rows
    request = next(each.json() for each in cloud.requests if each.path.endswith("/responses"))
    text, image = held_out[0]["messages"][0]["content"]
    assert request["input"][0]["content"] == [
        {"type": "input_text", "text": text["text"]},
        {"type": "input_image", "image_url": image["image_url"]["url"], "detail": "auto"},
    ]
    assert ended.samples[0]["prompt"] == "What is on picture 12?[image]"


def test_images_in_files_are_sent_with_their_content(cloud: Emulator, tmp_path: Path) -> None:
    rows = []
    for name, first, count in (("train", 0, 12), ("held_out", 12, 2)):
        expected = write_conversations(tmp_path / f"{name}.jsonl", count, first)
        for number, row in enumerate(expected, first):
            encoded = row["messages"][0]["content"][1]["image_url"]["url"].partition(",")[2]
            (tmp_path / f"{number}.png").write_bytes(b64decode(encoded))
        named = [
            {"messages": [{"role": "user", "content": f"What is on picture {number}?<image>"}, row["messages"][1]],
             "images": [f"{number}.png"]}
            for number, row in enumerate(expected, first)
        ]  # fmt: skip
        write_lines(tmp_path / f"{name}.jsonl", named)
        rows += expected
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *SEEING, "evaluation.samples=0"))
    assert ended.code == 0, ended.message
    assert [json.loads(line) for line in cloud.created_files[0].content.splitlines()] == rows[:12]


def test_the_service_fails_a_job_whose_model_does_not_see(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_conversations(tmp_path / "train.jsonl", 12)
    write_conversations(tmp_path / "held_out.jsonl", 2, first=12)
    table = tmp_path / "models.yaml"
    table.write_text('{"date": "2026", "source": "", "models": {}}')  # the service knows better than a table
    blind = ("method=sft", "model.source=hosted:gpt-4.1-mini", f"backend.models={table}")
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *blind))
    assert ended.code == 1
    assert "contains images, but the method `supervised` does not support it" in ended.message
