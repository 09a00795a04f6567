"""Finished runs of tiny models that have learned to answer, so that what a model says is decided and not a tie."""

import json
from pathlib import Path

from runner import api
from tests import tiny

QUESTIONS = ("bread", "cloth", "light", "the sky", "air", "blue light", "fresh bread", "cloth and air")


def make_model(folder: Path, architecture: str) -> Path:
    """Save a random model, 64 numbers wide: rows of whole blocks for GGUF's types of 32."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

    tiny.make_tokenizer(folder)
    sizes = {
        "vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "head_dim": 16,
        "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.1,
    }  # fmt: skip
    configs = {
        "llama": lambda: LlamaConfig(**sizes, tie_word_embeddings=True),
        "qwen2": lambda: Qwen2Config(**sizes, tie_word_embeddings=False),
        "qwen3": lambda: Qwen3Config(**sizes, tie_word_embeddings=True),
        # On a CPU vLLM 0.32 fails with heads of 16 numbers, when it is first asked.
        "wide_heads": lambda: LlamaConfig(**sizes | {"head_dim": 32}, tie_word_embeddings=True),
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(configs[architecture]())
    if architecture == "qwen2":  # transformers starts its biases at zero, where a mistake would not show
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    return folder


def make_run(folder: Path, architecture: str, *more: str) -> Path:
    """Return the folder of a run that has learned one manner of answering."""
    folder.mkdir(exist_ok=True)
    model = make_model(folder / "model", architecture)
    rows = [
        {"messages": [{"role": "user", "content": f"Why is {what} {number}?"},
                      {"role": "assistant", "content": f"Air keeps {what} {number} fresh."}]}
        for what in QUESTIONS for number in range(8)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return api.run(
        "method=sft", f"model.source=path:{model}", "dataset=files", f"dataset.train={folder / 'rows.jsonl'}",
        "dataset.validation_fraction=0.2", "sft.n_epochs=12", "sft.batch_size=8", "backend.learning_rate=0.02",
        "evaluation.samples=10", "evaluation.max_new_tokens=24", "tracking=none",
        r'dataset.style="Air keeps .* fresh\."', f"runs_folder={folder / 'runs'}", *more,
    ).folder  # fmt: skip
