"""What is JSON on the wire of Foundry's sessions: sequences with weights, log-probabilities, prompts and answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from runner.record.samples import Sampling
from runner.training.engine import Sampled
from tests.emulator.primitives.trainer import Lesson, Logps, Trainer
from tests.emulator.sessions.emulator import refusal

if TYPE_CHECKING:
    from tests.emulator.sessions.emulator import SessionsEmulator as Service


def lessons(given: dict[str, Any]) -> list[Lesson]:
    """Return the sequences of a request for the cross entropy; refuse those that are not shifted by one."""
    if given["loss_fn"] != "cross_entropy":
        raise refusal(400, "invalid_request", f"loss_fn {given['loss_fn']!r}: the emulator has cross_entropy only.")
    return [_lesson(datum) for datum in given["data"]]


def _lesson(datum: dict[str, Any]) -> Lesson:
    tokens = _tokens(datum["model_input"])
    inputs = {name: tensor["data"] for name, tensor in datum["loss_fn_inputs"].items()}
    targets, weights = [int(token) for token in inputs.get("target_tokens", ())], inputs.get("weights", ())
    if not len(tokens) == len(targets) == len(weights):
        raise refusal(400, "invalid_request", "cross_entropy needs target_tokens and weights, as long as the input.")
    if tokens[1:] != targets[:-1]:
        raise refusal(400, "invalid_request", "The emulator takes targets that are the input, shifted by one.")
    return Lesson([*tokens, targets[-1]], np.array(weights, np.float64))


def _tokens(given: dict[str, Any]) -> list[int]:
    if any(chunk["type"] != "text" for chunk in given["chunks"]):
        raise refusal(400, "invalid_request", "The emulator takes text only.")
    return [token for chunk in given["chunks"] for token in chunk["tokens"]]


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
    prompt, asked = _tokens(body["prompt"]), body["sampling_params"]
    how = Sampling(
        max_new_tokens=asked["max_tokens"], temperature=asked["temperature"], top_p=asked["top_p"],
        per_prompt=body["num_samples"], seed=asked.get("seed") or 0,
    )  # fmt: skip
    found = [_answer(service, each) for each in trainer.sample(prompt, how)]
    scored = None
    if body.get("prompt_logprobs"):
        lesson = Lesson(prompt, np.zeros(len(prompt) - 1, np.float32))
        scored = [None, *trainer.forward([lesson])[0].tolist()]
    return {"sequences": found, "prompt_logprobs": scored, "prompt_tokens": len(prompt)}
