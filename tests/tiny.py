"""A small random model with a tokenizer of its own, made in a second: real parts, nothing downloaded."""

from collections.abc import Sequence
from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = "How do I keep bread fresh? Wrap it in cloth. Why is the sky blue? Air scatters blue light. 0123456789 é 你好"


SEEING_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Images as Qwen2-VL's own template writes them."""
SEEING_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def make_tokenizer(folder: Path, template: str = TEMPLATE, more: Sequence[str] = ()) -> None:
    """Train a byte-level BPE tokenizer on a few words and save it as transformers does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.add_special_tokens({"additional_special_tokens": list(more)} if more else {})
    fast.chat_template = template
    fast.save_pretrained(folder)


def make_model(folder: Path, architecture: str = "llama") -> Path:
    """Save a random model of an architecture with a tokenizer; return the folder.

    `mistral` sees six tokens back in each layer, and each second layer of `gemma2`, whose logits are squeezed twice.
    """
    import torch
    from transformers import (
        AutoModelForCausalLM,
        Gemma2Config,
        GPT2Config,
        LlamaConfig,
        MistralConfig,
        Qwen2Config,
    )

    make_tokenizer(folder)
    sizes = {"vocab_size": 400, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    ends = {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 2}
    configs = {
        "llama": lambda: LlamaConfig(**sizes, **heads, **ends, tie_word_embeddings=True),
        "qwen2": lambda: Qwen2Config(**sizes, **heads, **ends),
        "gpt2": lambda: GPT2Config(vocab_size=400, n_embd=48, n_layer=2, n_head=4, n_positions=512, **ends),
        "mistral": lambda: MistralConfig(**sizes, **heads, **ends, sliding_window=6),
        "gemma2": lambda: Gemma2Config(
            **sizes, **heads, **ends, head_dim=12, sliding_window=6,
            attn_logit_softcapping=0.5, final_logit_softcapping=0.5, initializer_range=0.2,
        ),
    }  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(configs[architecture]())
    model.save_pretrained(folder)
    return folder


def make_seeing_model(folder: Path) -> Path:
    """Save a random Qwen2-VL with a tokenizer and an image processor, 16 x 16 pixels a token; return the folder."""
    import torch
    from transformers import AutoModelForImageTextToText, Qwen2VLConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from runner.models.chat.encoder import Encoder

    make_tokenizer(folder, SEEING_TEMPLATE, SEEING_TOKENS)
    size = {"shortest_edge": 16 * 16, "longest_edge": 16 * 16 * 64}
    Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, size=size).save_pretrained(folder)
    (start,), (end,), (image,), (video,) = map(Encoder(folder).encode, SEEING_TOKENS)
    text = {
        "vocab_size": video + 1, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 2, 2]},
    }  # fmt: skip
    vision = {
        "depth": 1, "embed_dim": 32, "hidden_size": 48, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "mlp_ratio": 2, "initializer_range": 0.2,
    }  # fmt: skip
    ids = {"image_token_id": image, "video_token_id": video, "vision_start_token_id": start, "vision_end_token_id": end}
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config=text, vision_config=vision, eos_token_id=2, bos_token_id=1, pad_token_id=2, **ids
    )
    model = AutoModelForImageTextToText.from_config(config)
    model.save_pretrained(folder)
    return folder
