"""A head with one output on a language model, in the classes that transformers has for it, …ForSequenceClassification.

What is saved is one whole model, the adapter merged, so that `AutoModelForSequenceClassification.from_pretrained` loads
it from its folder alone, and any library that takes such a model does.
"""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from runner import models
from runner.errors import ModelError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

HEAD = "score"
"""The head's name in transformers' classes."""


def has_head(model: nn.Module) -> bool:
    """Say whether a model is one of transformers' with such a head."""
    return type(model).__name__.endswith("ForSequenceClassification")


def with_head(model: "PreTrainedModel", seed: int) -> "PreTrainedModel":
    """Return a language model with a fresh head in place of its output layer; the weights are the same tensors.

    Raises `ModelError` where transformers has no such class for the architecture.
    """
    config = deepcopy(model.config)
    config.num_labels = 1
    if config.pad_token_id is None:
        # transformers finds an answer's end by it, in a batch.
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, list) else end
    try:
        # On `meta` the class costs no memory: its body is replaced by the one that is loaded.
        with torch.device("meta"):
            found: PreTrainedModel = models.quiet_transformers().AutoModelForSequenceClassification.from_config(config)
        head = getattr(found, HEAD)
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"model.source: transformers has no {HEAD} head for {type(model).__name__}, which method=reward needs; use "
            "a decoder such as Llama, Qwen, Mistral, Gemma or GPT-2."
        ) from error
    setattr(found, found.base_model_prefix, model.base_model)
    fresh = nn.Linear(head.in_features, 1, bias=False, device=model.device, dtype=torch.float32)
    # A generator of its own: the head is the same whatever was drawn before. In float32, since small updates of it
    # would be rounded away.
    noise = torch.randn(fresh.weight.shape, generator=torch.Generator().manual_seed(seed))
    std = getattr(config, "initializer_range", 0.02)
    fresh.weight.data.copy_(noise * std)
    setattr(found, HEAD, fresh)
    return found


def merged(model: "PreTrainedModel | PeftModel", dtype: str) -> "PreTrainedModel":
    """Return a copy of a trained model as one of transformers' own, its adapter merged into weights of a type."""
    # A copy: frozen weights are shared with the model that is evaluated next, and with other runs of this process.
    whole = deepcopy(model)
    if hasattr(whole, "merge_and_unload"):
        whole = whole.merge_and_unload()
    return whole.to(getattr(torch, dtype))


def load(folder: Path) -> "PreTrainedModel":
    """Return the reward model of a folder. Raises `ModelError` where it is none."""
    if not models.is_reward_model(folder):
        raise ModelError(f"{folder}: no reward model, which has a head with one output; train one with method=reward.")
    found: PreTrainedModel = models.quiet_transformers().AutoModelForSequenceClassification.from_pretrained(folder)
    return found.eval()
