"""What people who know other tools type, and the line that works here: words for keys, files and models."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from runner import models

OTHER_WORDS = {
    "name": ("run_name", "experiment_name", "exp_name"),
    "seed": ("random_seed", "data_seed"),
    "runs_folder": ("output_dir", "output", "out", "out_dir", "save_dir", "logging_dir"),
    "dataset.train": (
        "data",
        "train_data",
        "train_file",
        "data_path",
        "dataset_path",
        "dataset.path",
        "dataset.file",
        "dataset.data",
        "file",
        "path",
    ),
    "dataset.validation": ("val", "valid", "eval", "test", "eval_data", "eval_file", "val_file", "validation_file"),
    "dataset.validation_fraction": ("val_size", "test_size", "val_split", "validation_split", "eval_fraction"),
    "dataset.max_rows": ("max_samples", "limit", "num_samples", "max_train_samples"),
    "model.source": (
        "model_name",
        "model_name_or_path",
        "base_model",
        "model_path",
        "model_id",
        "model.name",
        "model.path",
        "model.id",
        "model.name_or_path",
    ),
    "n_epochs": ("epochs", "epoch", "num_epochs", "num_train_epochs", "max_epochs"),
    "batch_size": ("bs", "batch", "train_batch_size", "per_device_train_batch_size", "micro_batch_size"),
    "learning_rate": ("lr", "max_lr", "peak_lr"),
    "loss_type": ("loss", "loss_fn"),
    "group_size": ("num_generations", "n_samples_per_prompt"),
    "rft.max_new_tokens": ("max_completion_length", "max_response_length"),
    "updates_per_rollout": ("num_iterations", "ppo_epochs"),
    "extra_rounds": ("dynamic_sampling", "filter_groups", "max_num_gen_batches"),
    "epsilon": ("clip_range", "cliprange", "clip_ratio"),
    "beta": ("kl_coef", "kl_loss_coef", "init_kl_coef"),
    "mask_truncated": ("mask_truncated_completions",),
    "backend.max_length": ("max_len", "max_seq_length", "max_seq_len", "context_length", "seq_len", "cutoff_len"),
    "backend.lora.rank": ("r", "lora_r", "lora_rank"),
    "backend.lora.alpha": ("lora_alpha",),
    "backend.lora.dropout": ("lora_dropout",),
    "backend.lora.targets": ("target_modules", "lora_target_modules"),
    "backend.dtype": ("precision", "torch_dtype", "bf16", "fp16"),
    "backend.warmup_ratio": ("warmup", "warmup_steps"),
    "backend.schedule": ("scheduler", "lr_scheduler", "lr_scheduler_type"),
    "backend.max_grad_norm": ("grad_clip", "clip_grad_norm", "gradient_clip_val"),
    "backend.quantization": ("load_in_4bit", "load_in_8bit", "quant"),
    "evaluation.every": ("eval_steps", "eval_interval", "eval_every"),
    "evaluation.patience": ("early_stopping", "early_stopping_patience"),
    "evaluation.max_new_tokens": ("max_tokens",),
    "backend.runtime.checkpoint_every": ("save_steps", "save_every"),
}
"""By a key, or the last word of several keys, what it is called elsewhere."""


def for_key(key: str, known: Mapping[str, str]) -> str:
    """Return the question whether other keys were meant, empty where none is near. `known` are all that exist."""
    word = key.rpartition(".")[2]
    others = {each: ours for ours, names in OTHER_WORDS.items() for each in names}
    # The whole key first: model.name is a model's, name a run's.
    meant = others.get(key.lower()) or others.get(word.lower(), word)
    # `learning_rate` is a key, and `learning_rate_multiplier` is nearest to it for a hosted job.
    names = (meant, f"{meant}_multiplier")
    found = [each for name in names for each in known if name in (each, each.rpartition(".")[2])]
    # Of several keys with that last word, one of the same section is meant.
    section = [each for each in found if each.partition(".")[0] == key.partition(".")[0]]
    found = section or found or get_close_matches(key, known, 1)
    written = ["dataset=files dataset.train" if each == "dataset.train" else each for each in found]
    return f"did you mean {' or '.join(written)}? " if written else ""


def for_dataset(option: str) -> str | None:
    """Return what to write instead of `dataset=OPTION`, where that is a file rather than an option."""
    if Path(option).suffix in (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".gz") or Path(option).exists():
        return f"dataset=files dataset.train={option}"
    return None


def for_model(option: str) -> str | None:
    """Return what to write instead of `model=OPTION`, where that is a model rather than an option."""
    # A source as it should be, only given to the wrong key.
    source = option if option.partition(":")[0] in models.schemes() and ":" in option else models.suggest(option)
    if source is None and re.match(r"(gpt-|o\d|ft:)", option):
        return f"backend=foundry model.source=hosted:{option}"
    return source and f"model.source={source}"
