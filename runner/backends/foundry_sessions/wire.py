"""What goes over the wire of Foundry's sessions: JSON, as the package `azure-ai-finetuningsessions` 1.0.0b1 has it."""

from collections.abc import Sequence

import msgspec
import numpy as np

from runner.data.json_value import Json
from runner.errors import ServiceError
from runner.models.chat.image_tokens import PlacedImage, chunks
from runner.remote.engine.service import Answer, FloatArray, Operation, Save, Score

ROUTES = {"state": "checkpoint", "sampler": "checkpoint_sample"}
SEQUENCE = 1
"""A sampler is saved and asked under one number; ours are distinguished by their names."""


class Envelope(msgspec.Struct):
    """What a request has come to. `should_retry` says that the service has lost it, and asks for it again."""

    status: str
    result: msgspec.Raw = msgspec.Raw(b"{}")
    error: str | None = None
    error_code: str | None = None
    debug_ref: str | None = None
    should_retry: bool | None = None
    retry_after_sec: float | None = None


class _Tensor(msgspec.Struct):
    data: list[float]


class _Output(msgspec.Struct):
    logprobs: _Tensor


class _Scored(msgspec.Struct):
    loss_fn_outputs: list[_Output]


class _Stepped(msgspec.Struct):
    # The engine names them with its own namespace, skyrl.ai/grad_norm.
    metrics: dict[str, float | str | None] | None = None


class SampledSequence(msgspec.Struct):
    """An answer: token ids, and the log-probability of each where it is reported."""

    tokens: list[int]
    logprobs: list[float] | None = None


class Sampled(msgspec.Struct):
    """Answers to a prompt."""

    sequences: list[SampledSequence]


class Accepted(msgspec.Struct):
    """A request that is under way, and its session."""

    request_id: str
    session_id: str = ""


def model_input(ids: Sequence[int], images: Sequence[PlacedImage] = ()) -> dict[str, Json]:
    """Return token ids, some of which stand for images, as the input of a model."""
    return {"chunks": chunks(ids, images, "text")}


def request(operation: Operation) -> tuple[str, bytes]:
    """Return the route of an operation and its body."""
    if isinstance(operation, Score):
        return ("forward_backward" if operation.learns else "forward"), _scoring(operation)
    if isinstance(operation, Save):
        # seq_id is asked for, and means nothing where a name is given.
        number = {"seq_id": SEQUENCE} if operation.what == "sampler" else {}
        return ROUTES[operation.what], msgspec.json.encode({"path": operation.name, **number})
    adam = operation.adam
    keys = {
        "learning_rate": adam.learning_rate, "beta1": adam.beta1, "beta2": adam.beta2, "eps": adam.eps,
        "weight_decay": adam.weight_decay,
    }  # fmt: skip
    # All five: whatever is left out the service fills in with numbers of its own (0.95, 1e-12).
    return "optim_step", msgspec.json.encode({"adam_params": keys})


def _scoring(score: Score) -> bytes:
    """Return the body of a forward or forward_backward with the weighted cross entropy.

    Inputs are all tokens but the last, targets all but the first, as floats: a tensor has no other type there.
    """
    data = [
        {
            "model_input": model_input(datum.ids[:-1], datum.images),
            "loss_fn_inputs": {
                "target_tokens": {"data": [float(token) for token in datum.ids[1:]]},
                "weights": {"data": datum.weights.tolist()},
            },
        }
        for datum in score.data
    ]
    key = "forward_backward_input" if score.learns else "forward_input"
    return msgspec.json.encode({key: {"data": data, "loss_fn": "cross_entropy"}})


def answer(content: bytes, operation: Operation) -> Answer:
    """Return what came of a forward, a forward_backward or an optimizer step."""
    if isinstance(operation, Score):
        return Answer(logps=_logps(content, operation).tobytes())
    metrics = msgspec.json.decode(content, type=_Stepped).metrics or {}
    return Answer(values={name: float(value) for name, value in metrics.items() if isinstance(value, int | float)})


def _logps(content: bytes, score: Score) -> FloatArray:
    """Return the log-probabilities of the learned tokens, shape (tokens,).

    Raises `ServiceError` where the result is not of the form that the package knows.
    """
    try:
        outputs = msgspec.json.decode(content, type=_Scored).loss_fn_outputs
    except msgspec.MsgspecError as error:
        raise ServiceError(f"forward: the service's result has another form than expected: {error}.") from error
    # Outside of the learned tokens they are of no use, but their number shows whether the answer is to this question.
    found = [np.array(each.logprobs.data) for each in outputs]
    if [len(each) for each in found] != [len(datum.ids) - 1 for datum in score.data]:
        raise ServiceError("forward: the service's log-probabilities are not as many as the tokens.")
    return np.concatenate(
        [each[np.asarray(datum.learned, bool)] for each, datum in zip(found, score.data, strict=True)]
    )
