"""Models on this machine that answer prompts: of any source that can be loaded, and a run's checkpoints."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import models
from runner.data.rows import Prompt
from runner.errors import ModelError
from runner.record import layout
from runner.record.samples import Reply, Sampling

if TYPE_CHECKING:
    from runner.models.chat.tokenizer import ChatTokenizer
    from runner.plan import Run

HARNESS_BATCH = 8
"""Rows that a benchmark computes together."""


class Loaded:
    """The model of a source; `identity` is the digest of its weights."""

    def __init__(self, source: str, identity: str) -> None:
        self.source, self.identity = source, identity

    @cached_property
    def folder(self) -> Path:
        """Where the model lies, fetched if need be."""
        return models.fetch(self.source)

    @cached_property
    def model(self) -> Any:
        """The model, its adapters merged."""
        from runner.backends.local import model

        return model.load(self.folder)

    @cached_property
    def tokenizer(self) -> "ChatTokenizer":
        """The tokenizer of the model, or of the base model that it builds on."""
        from runner.models.chat.tokenizer import ChatTokenizer

        return ChatTokenizer(models.tokenizer_folder(self.folder))

    def close(self) -> None:
        """Free the weights: another model may need the room."""
        self.__dict__.pop("model", None)

    def replies(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Reply]]:
        """Return the answers to each prompt; all are computed together."""
        from runner.backends.local.generate import replies

        return replies(self.model, self.tokenizer, prompts, sampling)

    def harness_model(self) -> Any:
        """Return the model for lm-evaluation-harness, as it is loaded here."""
        from lm_eval.models.huggingface import HFLM
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(models.tokenizer_folder(self.folder))
        return HFLM(pretrained=self.model.eval(), tokenizer=tokenizer, batch_size=HARNESS_BATCH)

    def without_secrets(self, text: str) -> str:
        """Return the text: a model that is loaded has no secrets."""
        return text


class Checkpoint(Loaded):
    """A run's model after so many optimizer steps, by the weights that the run has kept of it."""

    def __init__(self, run: "Run", how: Mapping[str, object], step: int) -> None:
        super().__init__(run.plan.model.source, f"{run.plan.id} {step}")
        self.run, self.how = run, how
        self.weights = weights_at(run.folder, step)

    @cached_property
    def model(self) -> Any:
        """The model with those weights in place of the untrained ones."""
        from runner.backends.local.loaded_model import LoadedModel
        from runner.backends.local.training import checkpoint
        from runner.backends.local.training.learner import trainable

        found = LoadedModel(self.run, self.how).model
        inner = found.get_base_model() if hasattr(found, "get_base_model") else found  # whose names a checkpoint has
        checkpoint.load_weights(self.weights, trainable(inner))
        return found


def kept_steps(folder: Path) -> list[int]:
    """Return after how many optimizer steps a run's folder holds weights."""
    return sorted(int(path.name.rpartition("-")[2]) for path in (folder / layout.CHECKPOINTS).glob("step-*"))


def weights_at(folder: Path, step: int) -> Path:
    """Return the file with the weights that would have been the result after so many optimizer steps.

    Raises `ModelError` with those that are kept, where these are not.
    """
    for path in (folder / layout.CHECKPOINTS).glob("step-*"):
        if int(path.name.rpartition("-")[2]) == step:
            averaged = path / "averaged.safetensors"
            return averaged if averaged.exists() else path / "weights.safetensors"
    kept = ", ".join(map(str, kept_steps(folder))) or "none"
    raise ModelError(f"{folder}: no checkpoint after {step} optimizer steps; kept: {kept}.")
