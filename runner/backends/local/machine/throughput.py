"""Throughput and peak memory of a training step."""

import resource
import sys
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def figures(model: "PreTrainedModel", flops: float, num_tokens: int, seconds: float) -> dict[str, float]:
    """Return the `system/` metrics of a step over so many tokens of `flops` operations each.

    They are tokens/s, GFLOP/s, and the peak of memory in GiB.
    """
    return {
        "system/tokens_per_second": num_tokens / seconds,
        "system/model_gflops_per_second": num_tokens * flops / seconds / 1e9,
        "system/peak_memory_gib": peak_memory(model) / 2**30,
    }


def flops_per_token(model: "PreTrainedModel") -> float:
    """Return the operations that a token costs in training: two for each weight of a product, forward and back.

    The output layer, which sees answers' tokens only, and attention, which depends on the row, are left out.
    """
    # By identity, as input and output embeddings are often one tensor; a lookup is no product.
    # A reward model has a head with one output in place of the output layer.
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    tables = {id(module.weight) for module in ends if module is not None}
    tables |= {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    # forward, gradient of the input, and gradient of the weight where it learns
    return float(
        sum(
            # Each product is a multiplication and an addition per weight: 2 operations; frozen, its own gradient is
            # left out.
            (3 if weight.requires_grad else 2) * 2 * weight.numel()
            for weight in model.parameters()
            if weight.ndim == 2 and id(weight) not in tables
        )
    )


def peak_memory(model: "PreTrainedModel") -> int:
    """Return the most memory used so far, in bytes: of the GPU's where the model is on one, else of the process."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024  # getrusage(2): bytes on macOS, else kilobytes
