"""Each preference loss is that of TRL's trainers, to 1e-4: theirs on a batch, ours on the batch's log-probabilities.

The log-probabilities are read off the model with nothing but transformers, so that only the loss is compared.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.methods import Scores, dpo
from runner.methods.dpo import DPO
from runner.methods.dpo.losses import LOSSES

trl = pytest.importorskip("trl", reason="TRL is a development dependency (pip install '.[dev]')")

ROWS = [
    ("Why is the sky blue?", "Air scatters blue light.", "Because."),
    ("How do I keep bread fresh?", "Wrap it.", "Eat it now, all of it!"),
    ("你好, é?", "Wrap it in cloth, 你好.", "Wrap it in paper."),
    ("0123456789 " * 8, "1", "Air " * 40),
]


def conversations(rows: list[tuple[str, str, str]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
            for prompt, chosen, rejected in rows
        ]
    )


def load(folder: Path, disturbed: float = 0.0) -> Any:
    """Return the tiny model, its weights moved a little, the same way each time."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            step = torch.randn(parameter.shape, generator=generator) * parameter.abs().mean()
            parameter.add_(step * disturbed)
    return model.eval()


@torch.no_grad()
def summed(model: Any, ids: torch.Tensor, attended: torch.Tensor, answer: torch.Tensor) -> tuple[Any, Any]:
    """Return the log-probability of each sequence's answer and its number of tokens, both of shape (sequences,)."""
    logps = model(input_ids=ids, attention_mask=attended).logits[:, :-1].log_softmax(-1)
    chosen = logps.gather(-1, ids[:, 1:, None])[..., 0] * answer[:, 1:]
    return chosen.sum(1), answer[:, 1:].sum(1).float()


def as_pairs(values: torch.Tensor) -> torch.Tensor:
    """Return values of all chosen, then all rejected answers as (rows, answers)."""
    return torch.stack(values.chunk(2), 1)


def settings(tmp_path: Path, rows: int, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path), "per_device_train_batch_size": rows, "bf16": False, "use_cpu": True,
        "report_to": [], "gradient_checkpointing": False, "max_length": 512, **more,
    }  # fmt: skip


def tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)


def ours(policy: Scores, reference: torch.Tensor | None, keys: dict[str, Any]) -> tuple[float, dict[str, float]]:
    hyperparameters, _ = dpo.METHOD.resolve(DPO(**{"rpo_alpha": 0.0, **keys}), 100)
    assert [*dpo.METHOD.problems(hyperparameters)] == []
    loss, metrics = dpo.METHOD.loss(policy, reference, hyperparameters)
    return loss.mean().item(), {name: value.mean().item() for name, value in metrics.items()}


WITH_REFERENCE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Ours, and TRL's where it has another name for the same.
    "sigmoid": ({"beta": 0.3}, {}),
    "sigmoid, length-normalised": ({"beta": 5.0, "length_normalised": True}, {"loss_type": ["sigmoid_norm"]}),
    "ipo": ({"beta": 0.5}, {}),
    "hinge": ({"beta": 0.3}, {}),
    "robust": ({"beta": 0.3, "label_smoothing": 0.2}, {}),
    "apo_zero": ({"beta": 0.3}, {}),
    "sppo_hard": ({"beta": 0.3}, {}),
}


@pytest.mark.parametrize(("name", "keys", "theirs"), [(name, *each) for name, each in WITH_REFERENCE.items()])
def test_a_loss_with_a_reference_is_that_of_the_dpo_trainer(
    name: str, keys: dict[str, Any], theirs: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    name = name.partition(",")[0]
    known = {key: value for key, value in keys.items() if key != "length_normalised"}
    args = trl.DPOConfig(**settings(tmp_path, len(ROWS), **{"loss_type": [name], **known, **theirs}))
    policy, reference = load(tiny_model, 0.6), load(tiny_model)
    trainer = trl.DPOTrainer(
        model=policy, ref_model=reference, train_dataset=conversations(ROWS), args=args,
        processing_class=tokenizer(tiny_model),
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    expected = trainer.compute_loss(trainer.model, batch).item()
    tensors = batch["input_ids"], batch["attention_mask"], batch["completion_mask"]
    logps, num_tokens = (as_pairs(each) for each in summed(policy, *tensors))
    reference_logps = as_pairs(summed(reference, *tensors)[0])
    scores = Scores(logps, num_tokens, torch.zeros_like(logps))
    found, metrics = ours(scores, reference_logps, {"loss_type": name, **keys})
    assert found == pytest.approx(expected, rel=1e-4)
    shown = trainer._metrics["eval"]
    for answer in ("chosen", "rejected"):
        assert metrics[f"logps_{answer}"] == pytest.approx(shown[f"logps/{answer}"][0], rel=1e-4)
        if not (LOSSES[name].per_token or keys.get("length_normalised")):  # there TRL shows an answer's
            # A small difference of sums of some hundred nats, which float32 holds to about 1e-5.
            reward = shown[f"rewards/{answer}"][0]
            assert metrics[f"reward_{answer}"] == pytest.approx(reward, rel=1e-4, abs=1e-5)


def experimental(method: str) -> Any:
    """Import one of TRL's experimental trainers, which warn that they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(f"trl.experimental.{method}")


def batch_of(trainer: Any) -> tuple[Scores, dict[str, Any]]:
    """Return the log-probabilities of a CPO or ORPO trainer's first batch, and the batch."""
    batch = next(iter(trainer.get_train_dataloader()))
    parts = [
        summed(
            trainer.model,
            batch[f"{answer}_input_ids"],
            batch[f"{answer}_attention_mask"],
            batch[f"{answer}_labels"] != -100,
        )
        for answer in ("chosen", "rejected")
    ]
    logps, num_tokens = (torch.stack(each, 1) for each in zip(*parts, strict=True))
    return Scores(logps, num_tokens, torch.zeros_like(logps)), batch


@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        ({"beta": 2.0, "gamma": 1.0}, ROWS),
        ({"beta": 2.0, "gamma": 0.5, "label_smoothing": 0.1}, ROWS),
        (
            {"beta": 2.0, "gamma": 1.0, "rpo_alpha": 0.7},
            ROWS[:1],
        ),  # TRL's term is a batch's mean by token, ours a row's
    ],
    ids=["plain", "smoothed", "with the SFT term, on one row"],
)
def test_simpo_is_that_of_the_cpo_trainer(keys: dict[str, Any], rows: Any, tiny_model: Path, tmp_path: Path) -> None:
    cpo = experimental("cpo")
    names = {"gamma": "simpo_gamma", "rpo_alpha": "cpo_alpha"}
    known = {"cpo_alpha": 0.0} | {names.get(key, key): value for key, value in keys.items()}
    args = cpo.CPOConfig(**settings(tmp_path, len(rows), loss_type="simpo", **known))
    trainer = cpo.CPOTrainer(
        model=load(tiny_model, 0.6), train_dataset=conversations(rows), args=args,
        processing_class=tokenizer(tiny_model),
    )  # fmt: skip
    trainer.model.eval()
    scores, batch = batch_of(trainer)
    expected, shown = trainer.get_batch_loss_metrics(trainer.model, batch)
    found, metrics = ours(scores, None, {"loss_type": "simpo", **keys})
    assert found == pytest.approx(expected.item(), rel=1e-4)
    for answer in ("chosen", "rejected"):
        assert metrics[f"reward_{answer}"] == pytest.approx(shown[f"rewards/{answer}"], rel=1e-4)


def test_orpo_is_that_of_the_orpo_trainer_but_for_the_prompts_likelihood(tiny_model: Path, tmp_path: Path) -> None:
    module = experimental("orpo")
    args = module.ORPOConfig(**settings(tmp_path, len(ROWS), beta=0.3))
    trainer = module.ORPOTrainer(
        model=load(tiny_model, 0.6), train_dataset=conversations(ROWS), args=args,
        processing_class=tokenizer(tiny_model),
    )  # fmt: skip
    trainer.model.eval()
    scores, batch = batch_of(trainer)
    expected, shown = trainer.get_batch_loss_metrics(trainer.model, batch)
    answers_nll = -(scores.logps / scores.num_tokens)[:, 0].mean().item()
    found, metrics = ours(scores, None, {"loss_type": "orpo", "beta": 0.3})
    assert found - answers_nll == pytest.approx(expected.item() - shown["nll_loss"], rel=1e-4)
    for answer in ("chosen", "rejected"):
        assert metrics[f"reward_{answer}"] == pytest.approx(shown[f"rewards/{answer}"], rel=1e-4)


def test_every_loss_is_compared_with_trls() -> None:
    assert {name.partition(",")[0] for name in WITH_REFERENCE} | {"simpo", "orpo"} == set(LOSSES)
