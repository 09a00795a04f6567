"""The messages that are protobuf on the wire, as the package `tinker` encodes and decodes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tinker.proto import tinker_public_pb2 as pb

from runner.training.engine import Sampled
from tests.emulator.messages import Answer, Refusal
from tests.emulator.primitives.trainer import SEEN, Lesson, Logps, Picture

PROTOBUF = {"Content-Type": "application/x-protobuf"}
DTYPES: dict[int, Any] = {pb.DTYPE_FLOAT32: np.float32, pb.DTYPE_INT64: np.int64, pb.DTYPE_INT32: np.int32}


def request(body: bytes) -> pb.ForwardBackwardRequest:
    """Return a request of forward_backward; refuse what is no such message."""
    message = pb.ForwardBackwardRequest()
    try:
        message.ParseFromString(body)
    except Exception:
        raise Refusal(400, "The request body is not a valid ForwardBackwardRequest.", "invalid_protobuf") from None
    return message


def lessons(message: pb.ForwardBackwardRequest) -> list[Lesson]:
    """Return the sequences of a request for the cross entropy; refuse those that are not shifted by one."""
    if message.loss_fn != "cross_entropy":
        raise Refusal(400, f"loss_fn {message.loss_fn!r}: the emulator has cross_entropy only.", "unsupported_loss")
    return [_lesson(datum) for datum in message.data]


def _lesson(datum: pb.Datum) -> Lesson:
    tokens, images = _read(datum.model_input)
    inputs = {name: _array(tensor) for name, tensor in datum.loss_fn_inputs.items()}
    targets, weights = inputs.get("target_tokens"), inputs.get("weights")
    if targets is None or weights is None or not len(tokens) == len(targets) == len(weights):
        raise Refusal(400, "cross_entropy needs target_tokens and weights, as long as the input.", "invalid_datum")
    # Targets at the places of an image are any: they have no weight.
    if not ((tokens[1:] == targets[:-1]) | (tokens[1:] == SEEN)).all():
        raise Refusal(400, "The emulator takes targets that are the input, shifted by one.", "invalid_datum")
    return Lesson([*tokens.tolist(), int(targets[-1])], weights.astype(np.float32), images)


def _read(chunks: Sequence[pb.Chunk]) -> tuple[Any, list[Picture]]:
    """Return the ids of an input, `SEEN` where they stand for images, and these."""
    ids, images = list[Any](), list[Picture]()
    for chunk in chunks:
        if chunk.HasField("image"):
            start, image = sum(map(len, ids)), chunk.image
            images.append(Picture(start, image.expected_tokens, image.data, image.format))
            ids.append(np.full(image.expected_tokens, SEEN, np.int32))
        else:
            ids.append(np.frombuffer(chunk.encoded_text.tokens, np.int32))
    return np.concatenate(ids), images


def _array(tensor: pb.Tensor) -> Any:
    if not tensor.HasField("sparse_csr"):
        return np.frombuffer(tensor.dense, DTYPES[tensor.dtype])
    # The package sends a tensor that is mostly zeros as one row of a compressed sparse matrix.
    found = np.zeros(list(tensor.shape), DTYPES[tensor.dtype]).reshape(-1)
    found[np.frombuffer(tensor.sparse_csr.col_indices, np.int64)] = np.frombuffer(
        tensor.sparse_csr.values, DTYPES[tensor.dtype]
    )
    return found


def logps(found: Logps, metrics: dict[str, float]) -> Answer:
    """Return log-probabilities as the result of forward or forward_backward."""
    sizes = [4 * len(each) for each in found]
    field = pb.BatchedTensor(
        data=b"".join(each.tobytes() for each in found),
        offsets=np.cumsum([0, *sizes], dtype=np.int64).tobytes(),
        dtype=pb.DTYPE_FLOAT32,
    )
    record = pb.ArrayRecord(type_tag="LossFnOutput", fields={"logprobs": field}, num_datums=len(found))
    output = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord", loss_fn_outputs=[record], metrics=metrics)
    return Answer(body=output.SerializeToString(), headers=PROTOBUF)


def answers(found: Sequence[Sampled], prompt_logps: Any) -> Answer:
    """Return sampled answers as the result of asample."""
    message = pb.SampleResponse()
    for each in found:
        message.sequences.add(
            stop_reason=pb.STOP_REASON_STOP if each.ended else pb.STOP_REASON_LENGTH,
            tokens=np.array(each.ids, np.int32).tobytes(),
            logprobs=np.array(each.logps, np.float32).tobytes(),
        )
    if prompt_logps is not None:
        message.prompt_logprobs = np.concatenate([[np.nan], prompt_logps]).astype(np.float32).tobytes()
    return Answer(body=message.SerializeToString(), headers=PROTOBUF)
