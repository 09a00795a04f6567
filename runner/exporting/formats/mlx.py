"""`format=mlx`: a folder for MLX on Apple's processors, written and proven by mlx-lm, which also runs on Linux's CPUs.

Source: https://github.com/ml-explore/mlx-lm
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from runner.exporting.converted import Converted
from runner.exporting.exporter import Bound


class Mlx(Converted):
    """MLX by mlx-lm's converter."""

    name = "mlx"
    program = "mlx_lm"
    library = "mlx"
    # As measured: docs/export.md.
    bounds: ClassVar[Mapping[str, Bound]] = {
        "float16": Bound(0.02, 0.75),  # activations have 16 bits, too: 18 of 20 answers of the 135M model
        # Its arithmetic on CPUs: 0.00011 with the 135M model, where ONNX Runtime is 0.000009 apart.
        "float32": Bound(1e-3, 0.95),
        "bfloat16": Bound(0.1, 0.25),
        "8bit": Bound(0.1, 0.0),
        "4bit": Bound(1.0, 0.0),
    }

    def command(self, source: Path, made: Path, quantization: str) -> list[str]:
        """Return the converter's command line."""
        line = ["-m", "mlx_lm", "convert", "--hf-path", str(source), "--mlx-path", str(made)]
        if not quantization.endswith("bit"):
            return [*line, "--dtype", quantization]
        # What is not rounded to blocks, norms say, stays in 16 bits, as in the models that mlx-community gives away.
        return [*line, "--dtype", "float16", "--quantize", "--q-bits", quantization.removesuffix("bit")]

    def prepare(self, source: Path) -> None:
        """Name the rotation's base as before transformers 5: most architectures of mlx-lm 0.32 read `rope_theta` alone.

        Without it they take a base of their own, which for qwen2 is 1,000,000: another model, 0.1 nats a token apart.
        """
        config = json.loads((source / "config.json").read_bytes())
        rope = config.get("rope_parameters") or {}
        if "rope_theta" in rope:
            config["rope_theta"] = rope["rope_theta"]
            if rope.get("rope_type", "default") != "default":
                config["rope_scaling"] = rope
            (source / "config.json").write_text(json.dumps(config, indent=2), "utf-8")

    def usage(self, name: str, base: str) -> str:
        """Return how it is loaded."""
        return f"mlx_lm.chat --model {name}\n# or: mlx_lm.server --model {name}"


EXPORTER = Mlx()
