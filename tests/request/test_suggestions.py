"""What people who know other tools type is answered with the line that works here."""

from pathlib import Path

import pytest

from runner.request import hydra_config, suggestions

KNOWN = hydra_config.all_keys()


def of_all(key: str, methods: str = "dpo kto reward rft sft") -> str:
    """Return a key of several methods as a sentence lists it."""
    return " or ".join(f"{method}.{key}" for method in methods.split())


KEYS = [
    ("lr", f"backend.learning_rate or {of_all('learning_rate_multiplier')}"),
    ("learning_rate", f"backend.learning_rate or {of_all('learning_rate_multiplier')}"),
    ("dpo.lr", "dpo.learning_rate_multiplier"),
    ("epochs", of_all("n_epochs")),
    ("num_train_epochs", of_all("n_epochs")),
    ("batch_size", of_all("batch_size")),
    ("per_device_train_batch_size", of_all("batch_size")),
    ("beta", of_all("beta", "dpo kto rft")),
    ("loss", of_all("loss_type", "dpo kto rft")),
    ("num_generations", "rft.group_size"),
    ("output_dir", "runs_folder"),
    ("max_steps", "backend.max_steps"),
    ("max_seq_length", "backend.max_length"),
    ("data", "dataset=files dataset.train"),
    ("train", "dataset=files dataset.train"),
    ("dataset.path", "dataset=files dataset.train"),
    ("model.name", "model.source"),
    ("model_name_or_path", "model.source"),
    ("lora_r", "backend.lora.rank"),
    ("bf16", "backend.dtype"),
    ("dpo.n_epoch", "dpo.n_epochs"),
]


@pytest.mark.parametrize(("typed", "meant"), KEYS, ids=[typed for typed, _ in KEYS])
def test_a_key_of_another_tool_is_answered_with_the_key_of_this_one(typed: str, meant: str) -> None:
    assert suggestions.for_key(typed, KNOWN) == f"did you mean {meant}? "


def test_a_key_that_is_like_no_other_is_answered_with_none() -> None:
    assert suggestions.for_key("xylophone", KNOWN) == ""


def test_every_key_that_is_suggested_exists() -> None:
    last = {key.rpartition(".")[2] for key in KNOWN}
    assert [ours for ours in suggestions.OTHER_WORDS if ours not in KNOWN and ours not in last] == []


def test_no_word_of_another_tool_means_two_keys_or_hides_one() -> None:
    words = [word for words in suggestions.OTHER_WORDS.values() for word in words]
    assert len(words) == len(set(words))
    assert [word for word in words if word in KNOWN] == []


@pytest.mark.parametrize("typed", ["mine.jsonl", "data/mine.csv", "/data/*.parquet", "mine.jsonl.gz"])
def test_a_file_as_data_set_is_answered_with_the_option_for_files(typed: str) -> None:
    assert suggestions.for_dataset(typed) == f"dataset=files dataset.train={typed}"


def test_so_is_a_folder_that_exists_and_no_other_word(tmp_path: Path) -> None:
    assert suggestions.for_dataset(str(tmp_path)) == f"dataset=files dataset.train={tmp_path}"
    assert suggestions.for_dataset("mine") is None


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("Qwen/Qwen2.5-0.5B", "model.source=hf:Qwen/Qwen2.5-0.5B"),
        ("hf:Qwen/Qwen2.5-0.5B", "model.source=hf:Qwen/Qwen2.5-0.5B"),
        ("run:one", "model.source=run:one"),
        ("gpt-4.1-mini", "backend=foundry model.source=hosted:gpt-4.1-mini"),
        ("smollm", None),
    ],
)
def test_a_model_that_is_no_option_is_answered_with_its_source(typed: str, line: str | None) -> None:
    assert suggestions.for_model(typed) == line


def test_a_folder_as_model_is_answered_with_its_path(tmp_path: Path) -> None:
    assert suggestions.for_model(str(tmp_path)) == f"model.source=path:{tmp_path}"
