"""What is JSON on the wire of Foundry's sessions: sequences with weights, log-probabilities, prompts and answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from runner.record.samples import Sampling
from runner.training.engine import Sampled
from tests.emulator.primitives.trainer import SEEN, Lesson, Logps, Picture, Trainer, of_chunks
from tests.emulator.sessions.emulator import refusal

if TYPE_CHECKING:
    from tests.emulator.sessions.emulator import SessionsEmulator as Service

MOST_IMAGES, MOST_BYTES = 64, 10_000_000
"""What the service takes of images in an example, by the package."""


def lessons(given: dict[str, Any]) -> list[Lesson]:
    """Return the sequences of a request for the cross entropy; refuse those that are not shifted by one."""
    if given["loss_fn"] != "cross_entropy":
        raise refusal(400, "invalid_request", f"loss_fn {given['loss_fn']!r}: the emulator has cross_entropy only.")
    return [_lesson(datum) for datum in given["data"]]


def _lesson(datum: dict[str, Any]) -> Lesson:
    tokens, images = read(datum["model_input"])
    inputs = {name: tensor["data"] for name, tensor in datum["loss_fn_inputs"].items()}
    targets, weights = [int(token) for token in inputs.get("target_tokens", ())], inputs.get("weights", ())
    if not len(tokens) == len(targets) == len(weights):
        raise refusal(400, "invalid_request", "cross_entropy needs target_tokens and weights, as long as the input.")
    # Targets at the places of an image are any: they have no weight.
    if any(token not in (target, SEEN) for token, target in zip(tokens[1:], targets[:-1], strict=True)):
        raise refusal(400, "invalid_request", "The emulator takes targets that are the input, shifted by one.")
    return Lesson([*tokens, targets[-1]], np.array(weights, np.float64), images)


def read(given: dict[str, Any]) -> tuple[list[int], list[Picture]]:
    """Return the ids of an input, `SEEN` where they stand for images, and these; refuse more than the service takes."""
    ids, images = of_chunks(given["chunks"])
    if len(images) > MOST_IMAGES or any(len(image.content) > MOST_BYTES for image in images):
        raise refusal(400, "invalid_request", f"At most {MOST_IMAGES} images of {MOST_BYTES} bytes are taken.")
    return ids, images


def loss(given: Sequence[Lesson], logps: Logps) -> float:
    """Return the weighted cross entropy, a sum over tokens."""
    return -sum(float(each @ lesson.weights) for each, lesson in zip(logps, given, strict=True))


def scored(service: "Service", given: Sequence[Lesson], logps: Logps, more: dict[str, Any] | None = None) -> Any:
    """Return log-probabilities as the result of forward or forward_backward."""
    if service.noise:
        spread = np.random.default_rng()
        logps = [each + spread.normal(0, service.noise, len(each)) for each in logps]
    outputs = [
        {"logprobs": {"data": each.tolist(), "dtype": str(each.dtype), "shape": [len(each)]}} for each in logps
    ]  # fmt: skip
    metrics = {"training_tokens": sum(len(lesson.weights) for lesson in given), **(more or {})}
    return {"loss_fn_output_type": "logprobs", "loss_fn_outputs": outputs, "metrics": metrics}


def _answer(service: "Service", found: Sampled) -> dict[str, Any]:
    left_out = found.ended and service.reports != "all"
    ids, logps = (list(each)[: len(each) - left_out] for each in (found.ids, found.logps))
    return {"tokens": ids, "logprobs": None if service.reports == "no logprobs" else logps}


def answers(service: "Service", trainer: Trainer, body: dict[str, Any]) -> dict[str, Any]:
    """Return sampled answers, and the log-probabilities of the prompt where they are asked for."""
    (prompt, images), asked = read(body["prompt"]), body["sampling_params"]
    how = Sampling(
        max_new_tokens=asked["max_tokens"], temperature=asked["temperature"], top_p=asked["top_p"],
        per_prompt=body["num_samples"], seed=asked.get("seed") or 0,
    )  # fmt: skip
    found = [_answer(service, each) for each in trainer.sample(prompt, how, images)]
    scored = None
    if body.get("prompt_logprobs"):
        lesson = Lesson(prompt, np.zeros(len(prompt) - 1, np.float32), images)
        scored = [None, *trainer.forward([lesson])[0].tolist()]
    return {"sequences": found, "prompt_logprobs": scored, "prompt_tokens": len(prompt)}
