"""`format=onnx`: a graph for ONNX Runtime, with tokenizer and chat template, as onnxruntime-genai loads it.

optimum-onnx 0.1 wants transformers below 4.58, so that it cannot share an environment with what trains here. The model
builder of onnxruntime-genai, which is ONNX Runtime's own, takes any version.
Source: https://onnxruntime.ai/docs/genai/howto/build-model.html
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from runner.exporting.converted import Converted
from runner.exporting.exporter import Bound
from runner.record.files import read_json, write_json

CONFIG = "genai_config.json"


class Onnx(Converted):
    """ONNX by the model builder of onnxruntime-genai, for CPUs; it refuses an architecture that it does not know."""

    name = "onnx"
    program = "onnxruntime_genai"
    library = "onnx"
    # The builder's own names. 16 bits are for GPUs there, where the proof could not run. As measured: docs/export.md.
    bounds: ClassVar[Mapping[str, Bound]] = {
        "fp32": Bound(1e-4, 0.95),
        "int8": Bound(0.1, 0.0),
        "int4": Bound(1.0, 0.0),
    }

    def command(self, source: Path, made: Path, quantization: str) -> list[str]:
        """Return the model builder's command line."""
        builder = ["-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(made)]
        return [*builder, "-p", quantization, "-e", "cpu", "-c", str(made.with_name("cache"))]

    def finish(self, folder: Path, ends: list[int]) -> None:
        """Say what ends an answer: the builder adds the tokenizer's own end, which the run may never have obeyed."""
        config = read_json(folder / CONFIG, dict[str, dict[str, object]])
        assert config is not None
        config["model"]["eos_token_id"] = ends
        write_json(folder / CONFIG, config)

    def usage(self, name: str, base: str) -> str:
        """Return how it is loaded."""
        return (
            "import json, onnxruntime_genai as og\n\n"
            f'model = og.Model("{name}")\n'
            "tokenizer, params = og.Tokenizer(model), og.GeneratorParams(model)\n"
            'messages = json.dumps([{"role": "user", "content": "Hello"}])\n'
            "generator = og.Generator(model, params)\n"
            "generator.append_tokens(tokenizer.encode(tokenizer.apply_chat_template(messages)))\n"
            "while not generator.is_done():\n"
            "    generator.generate_next_token()\n"
            "print(tokenizer.decode(generator.get_sequence(0)))"
        )


EXPORTER = Onnx()
