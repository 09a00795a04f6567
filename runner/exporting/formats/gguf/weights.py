"""A model's weights and sizes as GGUF has them, for the architectures whose tensors are known here.

Source: `convert_hf_to_gguf.py` of llama.cpp (https://github.com/ggml-org/llama.cpp), whose `permute`, keys and tensor
names these are; the names come from the package `gguf`, which llama.cpp publishes.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from runner.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from torch import Tensor
    from transformers import PreTrainedModel


class Architecture(msgspec.Struct, frozen=True):
    """What GGUF calls an architecture of transformers, and the order of its queries and keys."""

    gguf: str
    interleaved: bool = False
    """llama.cpp turns neighbours of a head's vector, transformers its two halves: rows are put in that order."""


ARCHITECTURES = {
    "llama": Architecture("llama", interleaved=True),
    "mistral": Architecture("llama", interleaved=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
}
"""By `model_type` in config.json."""
# Numbers of llama.cpp's `llama_ftype`; files of mixed types have the number of most of their weights.
KINDS = {"f32": (0, "F32"), "f16": (1, "F16"), "bf16": (32, "BF16"), "q8_0": (7, "Q8_0"), "q4_0": (2, "Q4_0")}
"""Of each precision the number of the file's type, and what the type of a matrix is called in `gguf`."""


class Shape(msgspec.Struct, frozen=True):
    """The keys of config.json that a file needs. Raises `msgspec.ValidationError` where one is missing."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    rms_norm_eps: float
    vocab_size: int
    hidden_act: str
    rope_parameters: dict[str, str | float | int | None]
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool = False
    sliding_window: int | None = None
    use_sliding_window: bool | None = None

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def width(self) -> int:
        """The length of a head's vector."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def windowed(self) -> bool:
        """Whether a token sees only those shortly before it; qwen2 has a key that switches it on."""
        window, on = self.sliding_window, self.use_sliding_window is not False
        return on and window is not None and window < self.max_position_embeddings


def shape_of(config: Mapping[str, object]) -> Shape:
    """Return the sizes of a model. Raises `ModelError` for one whose file llama.cpp would compute otherwise."""
    kind = str(config.get("model_type"))
    allowed = ", ".join(ARCHITECTURES)
    # A wrong guess would be found by the proof, but only after minutes, and without the reason.
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"format: gguf does not know the architecture {kind}; allowed: {allowed}; use format=merged, and "
            "llama.cpp's convert_hf_to_gguf.py on its folder."
        )
    shape = msgspec.convert(config, Shape)
    rope = str(shape.rope_parameters.get("rope_type", "default"))
    odd = {
        f"rope_type={rope}": rope not in ("default", "linear", "llama3"),
        f"sliding_window={shape.sliding_window}": shape.windowed,
        f"hidden_act={shape.hidden_act}": shape.hidden_act != "silu",
    }
    if wrong := [name for name, is_odd in odd.items() if is_odd]:
        raise ModelError(f"format: gguf cannot say {', '.join(wrong)} of this {kind} model; use format=merged.")
    return shape


def add_sizes(writer: "GGUFWriter", shape: Shape) -> None:
    """Write the keys that say how the weights are used."""
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.key_heads)
    # Said always, though most models' is hidden size / heads: those of Qwen 3 are not.
    writer.add_key_length(shape.width)
    writer.add_value_length(shape.width)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_rope_dimension_count(shape.width)
    writer.add_rope_freq_base(float(shape.rope_parameters.get("rope_theta") or 10_000.0))
    if shape.rope_parameters.get("rope_type") == "linear":
        from gguf import RopeScalingType

        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(shape.rope_parameters["factor"] or 1.0))


def add_weights(writer: "GGUFWriter", model: "PreTrainedModel", shape: Shape, precision: str) -> None:
    """Write every weight, matrices in a precision, vectors in float32 as llama.cpp wants them.

    Raises `ModelError` for a weight that has no name there.
    """
    from gguf import GGMLQuantizationType as Type
    from gguf import quants

    wanted, half = Type[KINDS[precision][1]], Type.F16
    for name, weight in _named(model, shape):
        kind = Type.F32 if weight.ndim < 2 else wanted
        try:
            data = quants.quantize(weight, kind)
        except quants.QuantError:  # a row that is no multiple of the block's 32 numbers stays in 16 bits
            kind = half
            data = quants.quantize(weight, kind)
        writer.add_tensor(name, data, raw_dtype=kind)


def _named(
    model: "PreTrainedModel", shape: Shape
) -> Iterator[tuple[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]]:
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    how = ARCHITECTURES[shape.model_type]
    number = next(each for each in MODEL_ARCH if MODEL_ARCH_NAMES[each] == how.gguf)
    names = get_tensor_name_map(number, shape.num_hidden_layers)
    # A tensor and not a key, as llama.cpp has it since Llama 3.1: each frequency has a divisor of its own.
    if shape.rope_parameters.get("rope_type") == "llama3":
        yield "rope_freqs.weight", _llama3_factors(shape)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and shape.tie_word_embeddings:
            continue  # llama.cpp takes the embeddings where there is no output layer
        if how.interleaved and ".self_attn." in name:
            heads = {"q_proj": shape.num_attention_heads, "k_proj": shape.key_heads}.get(name.split(".")[-2])
            weight = weight if heads is None else _interleaved(weight, heads)
        # transformers' names are among those that the map knows, by architecture and layer.
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ModelError(f"format: gguf has no name for the weight {name}; use format=merged.")
        yield found, weight.float().cpu().contiguous().numpy()


def _interleaved(weight: "Tensor", heads: int) -> "Tensor":
    """Return rows (heads · width, …) whose halves of each head alternate."""
    return weight.view(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def _llama3_factors(shape: Shape) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Return by what each frequency is divided, as Llama 3.1 stretches its context (width / 2,)."""
    rope = {key: float(value) for key, value in shape.rope_parameters.items() if isinstance(value, int | float)}
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    waves = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, shape.width, 2) / shape.width)
    turns = rope["original_max_position_embeddings"] / waves
    # Between the two limits both rates are mixed: transformers' `_compute_llama3_parameters`.
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
