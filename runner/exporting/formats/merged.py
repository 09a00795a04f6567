"""`format=merged`: all weights in one folder, as transformers, vLLM and converters load a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from runner import models
from runner.exporting.exporter import Bound, Exporter, RunModel


class Merged(Exporter):
    """A model's folder, the adapters merged into the weights."""

    name = "merged"
    program = "transformers"
    # Merging is a sum of products in float32; rounding the sum to 16 bits comes on top. As measured: docs/export.md.
    bounds: ClassVar[Mapping[str, Bound]] = {
        "float32": Bound(1e-4, 0.95),
        "bfloat16": Bound(0.1, 0.25),
        "float16": Bound(0.02, 0.9),
    }

    def write(self, model: RunModel, folder: Path, quantization: str) -> None:
        """Write weights, configuration, tokenizer and chat template."""
        import torch

        # In place: a second copy of the weights may not fit.
        loaded = model.weights().to(getattr(torch, quantization))
        # Configuration and generation's end tokens go with it; the tokenizer's files are copied bit for bit.
        loaded.save_pretrained(folder)
        models.copy_tokenizer(model.tokenizer.folder, folder)

    def usage(self, name: str, base: str) -> str:
        """Return how it is loaded."""
        return f"vllm serve {name}\n# or: transformers serve {name}"


EXPORTER = Merged()
