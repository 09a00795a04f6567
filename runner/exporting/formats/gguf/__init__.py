"""`format=gguf`: one file for llama.cpp and all that builds on it, with weights, tokenizer and chat template."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from runner.exporting.exporter import Bound, Exporter, RunModel

FILE = "model.gguf"


class Gguf(Exporter):
    """GGUF by the package `gguf`; which architectures, says weights.py."""

    name = "gguf"
    program = "llama_cpp"
    library = "gguf"
    # llama.cpp rounds activations to the weights' own type, so that 16 bits differ, too. As measured: docs/export.md.
    bounds: ClassVar[Mapping[str, Bound]] = {
        "f16": Bound(0.02, 0.9),
        "f32": Bound(0.01, 0.9),
        "bf16": Bound(0.05, 0.25),
        "q8_0": Bound(0.1, 0.0),
        "q4_0": Bound(1.0, 0.0),
    }
    # Those with blocks of 32 numbers; larger ones (Q4_K, …) `gguf` reads and does not write.
    quantized = frozenset({"q8_0", "q4_0"})

    def write(self, model: RunModel, folder: Path, quantization: str) -> None:
        """Write the file. Raises `ModelError` for a model that llama.cpp would compute or read otherwise."""
        from gguf import GGUFWriter

        from runner.exporting.formats.gguf import vocabulary, weights

        loaded = model.weights()
        shape = weights.shape_of(loaded.config.to_dict())
        writer = GGUFWriter(folder / FILE, weights.ARCHITECTURES[shape.model_type].gguf)
        writer.add_type("model")
        writer.add_name(model.name)
        writer.add_file_type(weights.KINDS[quantization][0])
        writer.add_quantization_version(2)  # GGML_QNT_VERSION: the layout of blocks, since May 2023
        weights.add_sizes(writer, shape)
        # The embeddings, not config.json: their rows are what token ids index.
        size = loaded.get_input_embeddings().weight.shape[0]
        vocabulary.add(writer, model.tokenizer.folder, size, model.ends)
        weights.add_weights(writer, loaded, shape, quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def usage(self, name: str, base: str) -> str:
        """Return how it is loaded."""
        return f"llama-server -m {FILE} --jinja\n# or: ollama create {name} -f Modelfile, with the line FROM ./{FILE}"


EXPORTER = Gguf()
