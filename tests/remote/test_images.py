"""Rows with images in sessions: what a plan refuses, what is sent, and models that learn what is on a picture."""

import json
import random
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

pytest.importorskip("tinker")
pytest.importorskip("azure.ai.finetuningsessions")

from runner.backends.foundry_sessions import wire as sessions_wire
from runner.backends.tinker import wire as tinker_wire
from runner.data.images import Image
from runner.data.kinds.conversation import Conversation
from runner.data.rows import Message, Prompt
from runner.data.splits import Selection, read_rows
from runner.models.chat.image_tokens import PlacedImage, chunks, runs
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record.events import Note
from runner.record.journal import read
from runner.record.samples import Sampling
from runner.remote.engine.remote_engine import _requests, datums, question
from runner.remote.engine.service import Score, digest
from tests.backends.rehearsed import World, measured, sessions_world, tinker_world
from tests.data.samples import write_lines
from tests.emulator.faults import Fault
from tests.pictures import ADDRESS, asked, part, picture

WORLDS: dict[str, Callable[[Path, Path], Any]] = {"tinker": tinker_world, "foundry_sessions": sessions_world}
RED, BLUE = "bread", "sky"


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, seeing_model: Path, tmp_path: Path) -> Iterator[World]:
    with WORLDS[request.param](seeing_model, tmp_path) as found:
        yield found


def question_about(colour: str, chance: random.Random) -> list[dict[str, Any]]:
    """Return a question about a picture that is more or less red or blue, of some size, in some format."""
    strong, weak = chance.randint(180, 255), chance.randint(0, 60)
    shade: Any = (strong, weak, weak) if colour == RED else (weak, weak, strong)
    url = picture(chance.randint(8, 60), chance.randint(8, 60), chance.choice(["PNG", "JPEG"]), shade=shade)
    return asked("What is it? ", part(url))


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def conversations(count: int, seed: int) -> list[dict[str, Any]]:
    """Return as many questions about red pictures as about blue ones, each with its answer."""
    chance = random.Random(seed)
    return [{"messages": [*question_about(each, chance), said(each)]} for each in [RED, BLUE] * (count // 2)]


def pairs(count: int, seed: int) -> list[dict[str, Any]]:
    """Return the same with the other answer as the rejected one."""
    chance = random.Random(seed)
    return [
        {"input": {"messages": question_about(good, chance)}, "preferred_output": [said(good)],
         "non_preferred_output": [said(bad)]}
        for good, bad in [(RED, BLUE), (BLUE, RED)] * (count // 2)
    ]  # fmt: skip


def written(world: World, rows: Callable[[int, int], list[dict[str, Any]]]) -> None:
    write_lines(world.folder / "train.jsonl", rows(24, 0))
    write_lines(world.folder / "held_out.jsonl", rows(6, 1))


def line(world: World, *more: str) -> list[str]:
    return [
        "runner", "dataset=files", "dataset.train=train.jsonl", "dataset.validation=held_out.jsonl", "tracking=none",
        "backend.lora.rank=8", "backend.learning_rate=1e-2", "evaluation.samples=6", "evaluation.max_new_tokens=6",
        f"backend={world.backend}", f"model.source={world.source}", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_model_learns_what_is_on_a_picture_and_a_session_that_ends_on_the_way_changes_nothing(world: World) -> None:
    written(world, conversations)
    sft = ["method=sft", "sft.n_epochs=15", "sft.batch_size=8", "backend.runtime.checkpoint_every=10"]
    planned = world.command(*line(world, *sft, "mode=plan", "show=1"))
    assert "<|vision_start|><|image_pad|>×" in planned
    world.command(*line(world, *sft, "name=whole"))
    whole = world.of("whole")
    answers = [each["after"] for each in json.loads((whole / "samples.json").read_bytes())]
    assert answers == [RED, BLUE] * 3
    held_out = measured(whole)[45, "eval/loss"]
    assert held_out < 0.5
    # The tokens of the plan are those that were sent, each image with its own.
    assert f"about {tokens_trained(whole)} training" in planned
    world.service.inject(Fault("POST optim_step", "reset_after", skip=22))
    world.command(*line(world, *sft, "runs_folder=again"))
    (broken,) = (world.folder / "again").glob("*/")
    assert measured(broken)[45, "eval/loss"] == pytest.approx(held_out, rel=1e-4)
    assert world.service.disarm() is False
    if world.backend == "tinker":
        demand_the_same_by_transformers(world, whole)
        said_of_export = world.command("runner.export", whole.name, code=2)
        assert "no row has a prompt of text alone, of at most 1,024 tokens, to ask the export." in said_of_export


def demand_the_same_by_transformers(world: World, run: Path) -> None:
    """Require the adapter that was fetched to have the run's losses of the held-out rows, loaded by transformers."""
    import torch
    from peft import PeftModel
    from transformers import AutoImageProcessor, AutoModelForImageTextToText

    library, processor = AutoModelForImageTextToText, AutoImageProcessor.from_pretrained(world.model)
    model = PeftModel.from_pretrained(library.from_pretrained(world.model), str(run / "model" / "adapter-1")).eval()
    tokenizer = ChatTokenizer(world.model, sees=True)
    for row, line in zip(conversations(6, 1), (run / "evaluation.jsonl").read_text().splitlines(), strict=True):
        [url] = [each["image_url"]["url"] for each in row["messages"][0]["content"] if each["type"] == "image_url"]
        turns = (Message("user", "What is it? ", images=(Image(url, at=12),)), Message(**row["messages"][1]))
        tokens = tokenizer.row(Conversation(turns))
        ids = torch.tensor([tokens.prompt + tokens.answers[0]])
        pixels = processor(images=[Pillow.open(BytesIO(b64decode(Image(url).base64)))], return_tensors="pt")
        kinds = (ids == tokenizer.placeholder).int()
        logps = model(input_ids=ids, mm_token_type_ids=kinds, **pixels).logits[0].log_softmax(-1)
        own = [logps[place - 1, ids[0, place]].item() for place in range(len(tokens.prompt), ids.shape[1])]
        assert json.loads(line)["loss"] == pytest.approx(-sum(own) / len(own), abs=1e-4)


def tokens_trained(run: Path) -> str:
    """Return how many tokens a run has trained, as its last note says."""
    notes = [each.event.text for each in read(run / "journal.jsonl") if isinstance(each.event, Note)]
    return notes[-1].removeprefix("used ").partition(" training")[0]


@pytest.mark.slow
def test_preferences_about_pictures_begin_at_the_reference_and_are_learned(world: World) -> None:
    written(world, pairs)
    world.command(*line(world, "method=dpo", "dpo.n_epochs=6", "dpo.batch_size=8", "evaluation.samples=0", "name=dpo"))
    values = measured(world.of("dpo"))
    assert values[0, "eval/reward_margin"] == values[0, "eval/reward_chosen"] == 0
    assert values[18, "eval/reward_accuracy"] == 1.0
    world.command(*line(world, "method=kto", "kto.n_epochs=1", "kto.batch_size=8", "evaluation.samples=0", "name=kto"))
    assert (6, "eval/loss") in measured(world.of("kto"))


REFUSED = {
    "an address": (
        [part(ADDRESS)], [],
        "the image https://example.com/oak.png is at an address, and sessions take the content of images alone; write "
        "data:image/png;base64,… in its place, or use backend=foundry.",
    ),
    "too long a side": (
        [part(picture(2001, 10))], [],
        "is 2001 x 10 pixels, one side more than 200 times the other; cut it.",
    ),
    "cut": ([part(picture(100, 100))] * 2, ["backend.max_length=40"], "the prompt alone fills backend.max_length=40"),
    "by reward": ([part(picture())], ["method=rft", "evaluation.graders=[house_style]", "rft.grader=house_style"],
                  "the row holds an image, and method=rft samples and learns from text alone; take such rows out"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_plan_names_rows_whose_images_cannot_be_sent(case: str, world: World) -> None:
    parts, more, sentence = REFUSED[case]
    good = {"messages": [*asked("?", part(picture())), said("Blue.")]}
    write_lines(world.folder / "train.jsonl", [good, {"messages": [*asked("?", *parts), said("Blue.")]}])
    write_lines(world.folder / "held_out.jsonl", [good])
    method = [] if more and more[0] == "method=rft" else ["method=sft"]
    refusal = world.refusal(*line(world, *method, *more))
    assert "train.jsonl:1: " in refusal if case == "by reward" else "train.jsonl:2" in refusal
    assert sentence in refusal
    assert world.service.requests == []


def test_what_the_services_take_differs(seeing_model: Path, tmp_path: Path) -> None:
    many, webp = [part(picture())] * 65, [part(picture(format="WEBP"))]
    for name, lend in WORLDS.items():
        folder = tmp_path / name
        folder.mkdir()
        with lend(seeing_model, folder) as world:
            write_lines(folder / "held_out.jsonl", conversations(2, 1))
            refusals = []
            for parts in (many, webp):
                write_lines(folder / "train.jsonl", [{"messages": [*asked("?", *parts), said("Blue.")]}])
                try:
                    world.command(*line(world, "method=sft", "mode=plan"))
                    refusals.append("")
                except AssertionError as error:
                    refusals.append(str(error))
            if name == "tinker":
                assert refusals[0] == ""
                assert "is WEBP; sessions of backend=tinker take JPEG and PNG; convert it." in refusals[1]
            else:
                assert "the row has 65 images; sessions take 64 of one row; divide it." in refusals[0]
                assert refusals[1] == ""


def test_a_plan_counts_images_without_torch_and_without_transformers(world: World) -> None:
    written(world, conversations)
    code = (
        "import sys; from runner import api, planning\n"
        f"found = planning.count_tokens(api.plan(*{line(world, 'method=sft')[1:]!r}))\n"
        "print(found.splits['train'], sorted({'torch', 'transformers', 'azure.core', 'tinker'} & {*sys.modules}))"
    )
    # An interpreter of its own: others have imported what this one must not.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=world.folder, env=world.environment(), check=True, capture_output=True
    )
    tokenizer = ChatTokenizer(world.model, sees=True)
    rows = read_rows(Selection(train=str(world.folder / "train.jsonl"), kind="conversation"), "train")
    assert done.stdout.decode() == f"{sum(map(tokenizer.total, rows))} []\n"


def test_own_prompts_may_hold_images_that_the_service_takes(world: World) -> None:
    written(world, conversations)
    rows = [{"messages": asked("What is it?", part(picture(format=each)))} for each in ("PNG", "WEBP")]
    asking = line(world, "method=sft", "mode=plan", "evaluation.prompts=own.jsonl")
    write_lines(world.folder / "own.jsonl", rows[:1])
    world.command(*asking)
    write_lines(world.folder / "own.jsonl", rows)
    if world.backend == "tinker":
        assert "own.jsonl:2: the image data:image/webp;base64,UklGR" in world.refusal(*asking)
    else:
        world.command(*asking)


def test_a_model_that_sees_nothing_is_named_with_the_row(tiny_model: Path, tmp_path: Path) -> None:
    with tinker_world(tiny_model, tmp_path) as world:
        written(world, conversations)
        refusal = world.refusal(*line(world, "method=sft"))
    assert "train.jsonl:1: tiny-llama: the model sees no images: it comes without preprocessor_config.json" in refusal


@pytest.fixture
def two(seeing_model: Path) -> tuple[ChatTokenizer, Conversation, Conversation]:
    """Two rows whose tokens are the same, and their images are not."""
    rows = [
        Conversation(
            (
                Message("user", "What? Or this? ", images=(Image(picture(shade=shade)), Image(picture(40, 40), at=6))),
                Message("assistant", "Blue."),
            )
        )
        for shade in (1, 2)
    ]
    return ChatTokenizer(seeing_model, sees=True), rows[0], rows[1]


def test_another_image_is_another_request(two: tuple[ChatTokenizer, Conversation, Conversation]) -> None:
    tokenizer, *rows = two
    found = [tokenizer.row(row) for row in rows]
    assert found[0].prompt == found[1].prompt
    scores = [Score(list(datums([row], np.ones(9))), learns=True) for row in found]
    assert digest(scores[0]) != digest(scores[1])
    prompts = [tokenizer.encode_prompt(Prompt(row.question)) for row in rows]
    assert question(1, prompts[0], Sampling(max_new_tokens=4)) != question(1, prompts[1], Sampling(max_new_tokens=4))


def test_images_are_counted_into_the_size_of_a_request(two: tuple[ChatTokenizer, Conversation, Conversation]) -> None:
    tokenizer, row, _ = two
    heavy = Image("data:image/png;base64," + "A" * 100_000)
    tokens = tokenizer.row(row)
    rows = [replace(tokens, images=(tokens.images[0]._replace(image=heavy),))] * 8
    weights = np.ones(8 * sum(map(sum, tokens.learned)))
    assert [len(each) for each in _requests(rows, weights, 20_000)] == [3, 3, 2]
    assert [len(each) for each in _requests([tokens] * 8, weights, 20_000)] == [8]


def test_what_is_sent_is_what_the_packages_make_of_the_same(
    two: tuple[ChatTokenizer, Conversation, Conversation],
) -> None:
    from azure.ai.finetuningsessions import models as azure
    from azure.ai.finetuningsessions._utils.model_base import SdkJSONEncoder
    from tinker import types
    from tinker.proto.request_conv import forward_backward_request_to_proto

    tokenizer, row, _ = two
    tokens = tokenizer.row(row)
    score = Score(list(datums([tokens], np.arange(1.0, 9.0))), learns=True)
    (datum,) = score.data
    azures, tinkers = list[Any](), list[Any]()
    for each in runs(datum.ids[:-1], datum.images):
        if isinstance(each, PlacedImage):
            keys: Any = {"data": b64decode(each.image.base64), "format": "png", "expected_tokens": each.num_tokens}
            azures.append(azure.ImageChunk(**keys))
            tinkers.append(types.ImageChunk(**keys))
        else:
            azures.append(azure.ModelInputChunk(tokens=each))
            tinkers.append(types.EncodedTextChunk(tokens=each))
    assert [type(each).__name__ for each in tinkers] == ["EncodedTextChunk", "ImageChunk"] * 2 + ["EncodedTextChunk"]
    theirs = json.loads(json.dumps(azure.ModelInput(chunks=azures), cls=SdkJSONEncoder))
    assert sessions_wire.model_input(datum.ids[:-1], datum.images) == theirs
    whole = types.ModelInput(chunks=tinkers)
    assert chunks(datum.ids[:-1], datum.images, "encoded_text") == json.loads(whole.model_dump_json())["chunks"]
    inputs = {
        "target_tokens": types.TensorData(data=datum.ids[1:], dtype="int64", shape=[len(datum.ids) - 1]),
        "weights": types.TensorData(data=datum.weights.tolist(), dtype="float32", shape=[len(datum.weights)]),
    }
    asked_for = types.ForwardBackwardRequest(
        forward_backward_input=types.ForwardBackwardInput(
            data=[types.Datum(model_input=whole, loss_fn_inputs=inputs)], loss_fn="cross_entropy"
        ),
        model_id="m",
        seq_id=3,
    )
    theirs = forward_backward_request_to_proto(asked_for).SerializeToString(deterministic=True)
    assert tinker_wire.request("m", score, 3) == theirs
