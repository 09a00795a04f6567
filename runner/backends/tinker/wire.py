"""What is protobuf on Tinker's wire: forward and forward_backward, and answers; the messages are the package's own."""

from base64 import b64decode
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runner.errors import ServiceError
from runner.models.chat.image_tokens import PlacedImage, runs
from runner.remote.engine.service import FloatArray, Score
from runner.training.engine import Sampled

if TYPE_CHECKING:
    from types import ModuleType


@cache
def messages() -> "ModuleType":
    """Return the module of the messages; the package takes 2 s to import, so that only a step does it."""
    from tinker.proto import tinker_public_pb2

    module: ModuleType = tinker_public_pb2
    return module


def request(model: str, score: Score, number: int) -> bytes:
    """Return the body of a forward or forward_backward with the weighted cross entropy.

    Source: `tinker/proto/request_conv.py`, version 0.38. Inputs are all tokens but the last, targets all but the first.
    """
    pb = messages()
    message = pb.ForwardBackwardRequest(
        model_id=model, seq_id=number, loss_fn="cross_entropy", forward_only=not score.learns
    )
    for datum in score.data:
        ids = np.asarray(datum.ids, np.int64)
        entry = message.data.add()
        for part in runs(datum.ids[:-1], datum.images):
            chunk = entry.model_input.add()
            if isinstance(part, PlacedImage):
                chunk.image.data, chunk.image.format = b64decode(part.image.base64), part.image.format
                chunk.image.expected_tokens = part.num_tokens
            else:
                chunk.encoded_text.tokens = np.asarray(part, np.int32).tobytes()
        for name, dtype, array in (
            ("target_tokens", pb.DTYPE_INT64, ids[1:]),
            # float32 is all that the wire has.
            ("weights", pb.DTYPE_FLOAT32, datum.weights.astype(np.float32)),
        ):
            tensor = entry.loss_fn_inputs[name]
            tensor.dense, tensor.dtype = array.tobytes(), dtype
            tensor.shape.append(len(array))
    content: bytes = message.SerializeToString(deterministic=True)
    return content


def logps(content: bytes, score: Score) -> FloatArray:
    """Return the log-probabilities of the learned tokens, shape (tokens,), out of a result.

    Raises `ServiceError` where it is not of the form that the package knows.
    """
    output = messages().ForwardBackwardOutput()
    output.ParseFromString(content)
    found: list[NDArray[np.float32]] = []
    for record in output.loss_fn_outputs:
        field = record.fields["logprobs"]
        # Byte offsets of each sequence in one array.
        offsets = np.frombuffer(field.offsets, np.int64) // 4
        array = np.frombuffer(field.data, np.float32)
        found += [array[start:end] for start, end in pairwise(offsets)]
    lengths = [len(datum.ids) - 1 for datum in score.data]
    if [len(each) for each in found] != lengths:
        raise ServiceError(
            "forward: the service's log-probabilities are not as many as the tokens; the package tinker that is "
            "installed may be too old for it."
        )
    learned = [each[np.asarray(datum.learned, bool)] for each, datum in zip(found, score.data, strict=True)]
    return np.concatenate(learned).astype(np.float64)


def answers(content: bytes) -> Sequence[Sampled]:
    """Return the sampled answers of a result."""
    pb = messages()
    output = pb.SampleResponse()
    output.ParseFromString(content)
    return [
        Sampled(
            np.frombuffer(each.tokens, np.int32).tolist(),
            np.frombuffer(each.logprobs, np.float32).tolist(),
            each.stop_reason == pb.STOP_REASON_STOP,
        )
        for each in output.sequences
    ]


def prompt_logps(content: bytes, num_tokens: int) -> list[float]:
    """Return the log-probability of each token of a prompt but the first, for which there is none.

    Raises `ServiceError` where they are not as many as the tokens.
    """
    output = messages().SampleResponse()
    output.ParseFromString(content)
    found = np.frombuffer(output.prompt_logprobs, np.float32).astype(np.float64)[1:]
    if len(found) != num_tokens - 1 or np.isnan(found).any():
        raise ServiceError("sample: the service's log-probabilities of a prompt are not as many as its tokens.")
    return [float(each) for each in found]
