"""Loss, rewards and gradients are those of TRL's trainers on the same rows, to 1e-4."""

from pathlib import Path
from typing import Any

import pytest
import torch

from runner import methods
from runner.backends.local import layout
from runner.backends.local.train import Example, Learner, Recipe
from runner.data.rows import Conversation, Message, Pair
from runner.methods.dpo import DPO
from runner.methods.sft import SFT
from runner.tokens import ChatTokenizer

trl = pytest.importorskip("trl", reason="TRL is a development dependency (pip install '.[dev]')")

SYSTEM = Message("system", "Answer in one line.")


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


PAIRS = [
    Pair((user("Why is the sky blue?"),), (assistant("Air scatters blue light."),), (assistant("Because."),)),
    Pair(
        (SYSTEM, user("How do I keep bread fresh?")), (assistant("Wrap it."),), (assistant("Eat it now, all of it!"),)
    ),
    Pair(
        (user("Hi"), assistant("Hello."), user("你好, again é?")),
        (assistant("Wrap it in cloth, 你好."),),
        (assistant("Wrap it in paper."),),
    ),
    Pair((user("0123456789 " * 8),), (assistant("1"),), (assistant("Air " * 40),)),
]
CONVERSATIONS = [Conversation((*pair.prompt, *pair.chosen)) for pair in PAIRS]


def recipe(method: str, hyperparameters: Any) -> Recipe:
    return Recipe(
        method=methods.load(method), hyperparameters=hyperparameters, learning_rate=1e-3, schedule="constant",
        warmup_ratio=0.0, weight_decay=0.0, max_grad_norm=1e9, num_steps=1, seed=0, evaluate_every=9,
        checkpoint_every=9, keep_best=False,
    )  # fmt: skip


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def disturb(model: Any) -> Any:
    """Move the weights a little, the same way each time, so that policy and reference differ."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02 * parameter.abs().mean())
    return model


def ours(folder: Path, method: str, hyperparameters: Any, rows: list[Any], how: Any) -> tuple[Any, dict[str, float]]:
    """Return the policy with its gradients after one batch, and the batch's loss and metrics."""
    tokenizer = ChatTokenizer(folder)
    token_rows = [tokenizer.row(row, 512) for row in rows]
    reference = Learner(load(folder), recipe(method, hyperparameters), how)
    examples = [Example(row, None) for row in token_rows]
    if method == "dpo":
        from runner.backends.local.logps import scores

        with torch.no_grad():
            examples = [Example(row, tuple(scores(reference.model, row, how).logps.tolist())) for row in token_rows]
    learner = Learner(disturb(load(folder)), recipe(method, hyperparameters), how)
    values = learner.backward(examples)
    return learner.model, {name: value.item() for name, value in values.items()}


def trainer_settings(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path), "per_device_train_batch_size": len(PAIRS), "bf16": False, "use_cpu": True,
        "report_to": [], "gradient_checkpointing": False, "max_length": 512, **more,
    }  # fmt: skip


def theirs(trainer: Any, shown: dict[str, str]) -> tuple[Any, dict[str, float]]:
    """Return TRL's policy with its gradients after one batch, and loss and metrics by our names."""
    trainer.model.eval()
    inputs = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    metrics = trainer._metrics["eval"] if trainer._metrics["eval"] else trainer._metrics["train"]
    return trainer.model, {"loss": loss.item()} | {name: metrics[key][0] for name, key in shown.items()}


def assert_same(one: tuple[Any, dict[str, float]], other: tuple[Any, dict[str, float]]) -> None:
    (model, values), (their_model, their_values) = one, other
    for name, value in their_values.items():
        # A reward is a small difference of sums of some hundred nats, which float32 holds to about 1e-5.
        assert values[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    their_gradients = {name: p.grad for name, p in their_model.named_parameters() if p.grad is not None}
    assert gradients.keys() == their_gradients.keys()
    # The gradient as one vector: the smallest entries of the smallest weights are float32 noise.
    one, other = (torch.cat([each[name].flatten() for name in gradients]) for each in (gradients, their_gradients))
    assert ((one - other).norm() / other.norm()).item() < 1e-4


DPO_NAMES = {
    "reward_accuracy": "rewards/accuracies",
    "reward_margin": "rewards/margins",
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "logps_chosen": "logps/chosen",
    "logps_rejected": "logps/rejected",
}


def dpo_trainer(folder: Path, tmp_path: Path, rows: list[Pair], **more: Any) -> Any:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    as_dicts = [
        {
            key: [{"role": m.role, "content": m.content} for m in getattr(row, key)]
            for key in ("prompt", "chosen", "rejected")
        }
        for row in rows
    ]
    return trl.DPOTrainer(
        model=disturb(load(folder)), ref_model=load(folder), train_dataset=Dataset.from_list(as_dicts),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
        args=trl.DPOConfig(**trainer_settings(tmp_path, **more)),
    )  # fmt: skip


@pytest.mark.parametrize("how", [layout.shared, layout.plain])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_dpo_agrees_with_trl(architecture: str, how: Any, tiny_models: Any, tmp_path: Path) -> None:
    folder = tiny_models(architecture)
    hyperparameters = DPO(n_epochs=1, batch_size=4, learning_rate_multiplier=1.0, beta=0.3, rpo_alpha=0.0)
    mine = ours(folder, "dpo", hyperparameters, PAIRS, how)
    assert_same(mine, theirs(dpo_trainer(folder, tmp_path, PAIRS, beta=0.3), DPO_NAMES))


@pytest.mark.slow
def test_dpo_agrees_with_trl_on_the_embedded_model(embedded_model: Path, tmp_path: Path) -> None:
    hyperparameters = DPO(n_epochs=1, batch_size=2, learning_rate_multiplier=1.0, beta=0.1, rpo_alpha=0.0)
    mine = ours(embedded_model, "dpo", hyperparameters, PAIRS[:2], layout.shared)
    assert_same(mine, theirs(dpo_trainer(embedded_model, tmp_path, PAIRS[:2], beta=0.1), DPO_NAMES))


def test_rpo_agrees_with_trl_sigmoid_plus_sft_on_one_pair(tiny_model: Path, tmp_path: Path) -> None:
    hyperparameters = DPO(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0, beta=0.1, rpo_alpha=0.7)
    mine = ours(tiny_model, "dpo", hyperparameters, PAIRS[:1], layout.shared)
    trainer = dpo_trainer(
        tiny_model, tmp_path, PAIRS[:1], beta=0.1, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.7]
    )
    assert_same(mine, theirs(trainer, DPO_NAMES))


def test_sft_agrees_with_trl(tiny_model: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    hyperparameters = SFT(n_epochs=1, batch_size=4, learning_rate_multiplier=1.0)
    mine = ours(tiny_model, "sft", hyperparameters, CONVERSATIONS, layout.shared)
    as_dicts = [
        {
            "prompt": [{"role": m.role, "content": m.content} for m in row.messages[:-1]],
            "completion": [{"role": "assistant", "content": row.messages[-1].content}],
        }
        for row in (Conversation((*pair.prompt, *pair.chosen)) for pair in PAIRS)
    ]
    last_only = [
        Conversation(
            (
                *(Message(m.role, m.content, weight=0 if m.role == "assistant" else None) for m in row.messages[:-1]),
                row.messages[-1],
            )
        )
        for row in CONVERSATIONS
    ]
    mine = ours(tiny_model, "sft", hyperparameters, last_only, layout.shared)
    trainer = trl.SFTTrainer(
        model=disturb(load(tiny_model)), train_dataset=Dataset.from_list(as_dicts),
        processing_class=PreTrainedTokenizerFast.from_pretrained(tiny_model),
        args=trl.SFTConfig(**trainer_settings(tmp_path, completion_only_loss=True)),
    )  # fmt: skip
    assert_same(mine, theirs(trainer, {"token_accuracy": "mean_token_accuracy"}))
