"""KTO: loss, rewards, divergence, gradients and optimizer steps are those of TRL on the same rows in float32.

Differences that are left on purpose: TRL pairs a prompt with the answer of the row before it even where that answers
the same prompt, and a batch of one row with its own answer; the runner takes the next other one. TRL cuts a mismatched
answer to its new prompt's room, the runner one that its own prompt has cut before. TRL logs no rewards of a kind that a
batch does not have, and neither does the runner.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training.in_process import InProcessEngine
from runner.data.kinds.judged import Judged
from runner.methods.kto import KTO
from runner.models.chat.row_tokens import TokenRow
from runner.models.chat.tokenizer import ChatTokenizer
from runner.training import by_primitives
from runner.training.batches import StoredBatches
from runner.training.examples import Example
from runner.training.mismatched import mismatched_rows
from runner.training.schedule import count_epochs, order
from tests.backends.local import plain
from tests.backends.local.training.test_trl_parity import (
    SYSTEM,
    assert_same,
    assistant,
    bare,
    gradients,
    learner,
    policy,
    turns,
    user,
)  # fmt: skip
from tests.training.driving import Listed, reported

pytestmark = pytest.mark.slow

trl = pytest.importorskip("trl", reason="TRL is a development dependency (pip install '.[dev]')")

MAX_LENGTH, BATCH_SIZE, NUM_STEPS, SEED = 96, 5, 6, 0
AWKWARD = {
    "plain": Judged((user("Why is the sky blue?"),), (assistant("Air scatters blue light."),), True),
    "bad": Judged((user("Why is the sea blue?"),), (assistant("Because."),), False),
    "with a system prompt": Judged((SYSTEM, user("How do I keep bread?")), (assistant("Wrap it."),), True),
    "many turns, non-Latin": Judged(
        (user("Hi"), assistant("Hello."), user("你好, é?"), assistant("é"), user("…и?")),
        (assistant("Да, 你好."),),
        False,
    ),
    "one token": Judged((user("1"),), (assistant("1"),), True),
    "no text in the prompt": Judged((user(""),), (assistant("Air"),), False),
    "no text in the answer": Judged((user("Why?"),), (assistant(""),), True),
    "a long answer": Judged((user("How?"),), (assistant("Air scatters blue light. " * 5),), False),
    "a long prompt, with which others are cut": Judged((user("0123456789 " * 6),), (assistant("Air"),), True),
    "an answer like another": Judged((user("So?"),), (assistant("Because."),), True),
}
KEYS = KTO(n_epochs=3, batch_size=BATCH_SIZE, learning_rate_multiplier=1.0, beta=0.3)
SHOWN = {
    "reward_chosen": "rewards/chosen", "reward_rejected": "rewards/rejected", "reward_margin": "rewards/margins",
    "kl": "kl",
}  # fmt: skip


def trainer(folder: Path, model: Any, rows: Sequence[Judged], keys: KTO, tmp_path: Path, **more: Any) -> Any:
    """Return TRL's trainer for rows in the order of our batches."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    names = ("loss_type", "beta", "desirable_weight", "undesirable_weight")
    arguments = trl.KTOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=keys.batch_size, bf16=False, use_cpu=True, report_to=[],
        gradient_checkpointing=False, max_length=MAX_LENGTH, save_strategy="no", logging_steps=1, disable_tqdm=True,
        optim="adamw_torch_fused", lr_scheduler_type="cosine", warmup_steps=0, weight_decay=0.1, max_grad_norm=1.0,
        **{name: getattr(keys, name) for name in names}, **more,
    )  # fmt: skip
    data = [{"prompt": turns(row.prompt), "completion": turns(row.reply), "label": row.good} for row in rows]
    return trl.KTOTrainer(
        model=model, ref_model=plain.load(folder), train_dataset=Dataset.from_list(data), args=arguments,
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
    )  # fmt: skip


def batches(folder: Path, model: Any, rows: Sequence[Judged], keys: KTO) -> tuple[InProcessEngine, StoredBatches]:
    """Return an engine, and rows in batches as a run has them, with what the untouched model says of them."""
    found = learner(model, "kto", keys, num_steps=NUM_STEPS, seed=SEED)
    tokenizer = ChatTokenizer(folder)
    tokens = [tokenizer.row(row, MAX_LENGTH) for row in rows]

    def examples(given: Sequence[TokenRow], judged: Sequence[Judged] = ()) -> Listed:
        with torch.no_grad():
            if hasattr(model, "disable_adapter"):
                with model.disable_adapter():
                    logps = found.scorer(given).logps.tolist()
            else:
                logps = Scorer(plain.load(folder))(given).logps.tolist()
        targets = [row.targets() for row in judged] or [()] * len(given)
        return Listed(Example(*each) for each in zip(given, map(tuple, logps), targets, strict=True))

    pairs = mismatched_rows({"train": tokens}, "train", found.recipe, MAX_LENGTH)
    apart = examples([*pairs]) if pairs is not None else None
    return InProcessEngine(found, folder), StoredBatches(examples(tokens, rows), found.recipe, apart)


def in_order(rows: Sequence[Judged], epochs: int = 1) -> list[Judged]:
    """Return rows in the order in which our batches take them."""
    return [rows[number] for epoch in range(epochs) for number in order(len(rows), SEED, epoch)]


def theirs(trainer: Any, size: int) -> tuple[dict[str, float], Any]:
    """Return TRL's loss and metrics of the first batch, and its gradient by weight."""
    rows = [trainer.train_dataset[number] for number in range(size)]
    trainer.model.eval()
    trainer.model.zero_grad()
    with plain.untouched():
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
        loss.backward()
    shown = trainer._metrics["eval"]
    values = {name: shown[key][0] for name, key in SHOWN.items() if key in shown}
    both = "reward_margin" in values
    return {"loss": loss.item()} | (values if both else {"kl": values["kl"]}), gradients(trainer.model)


ALL = list(AWKWARD.values())
CASES: dict[str, tuple[list[Judged], KTO]] = {
    "kto": (ALL, KEYS),
    "unequal weights": (ALL, replace(KEYS, desirable_weight=0.4, undesirable_weight=1.6)),
    "apo_zero_unpaired": (ALL, replace(KEYS, loss_type="apo_zero_unpaired")),
    "good answers alone": ([row for row in ALL if row.good], KEYS),
    "bad answers alone": ([row for row in ALL if not row.good], KEYS),
}


@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_awkward_rows_agrees_in_one_pass_and_in_two(name: str, tiny_model: Path, tmp_path: Path) -> None:
    rows, keys = CASES[name]
    keys = replace(keys, batch_size=len(rows))
    # Farther from the reference than the usual policy, so that the divergence counts.
    model, own = (plain.disturbed(plain.load(tiny_model), 0.3) for _ in range(2))
    expected = theirs(trainer(tiny_model, own, in_order(rows), keys, tmp_path), len(rows))
    engine, stored = batches(tiny_model, model, rows, keys)
    _, batch = reported(stored.batch(engine, 0))
    assert name != "kto" or expected[0]["kl"] > 0.01
    for forward_backward in (InProcessEngine.forward_backward_custom, by_primitives.forward_backward_custom):
        values = dict(forward_backward(engine, batch.examples, batch.loss)())
        assert ("reward_margin" in values) == ("alone" not in name)
        assert_same((values, gradients(engine.learner.model)), expected)
        engine.learner.model.zero_grad()


def test_six_optimizer_steps_over_three_epochs_lead_to_the_same_weights(tiny_models: Any, tmp_path: Path) -> None:
    folder = tiny_models("qwen2")
    rows = in_order(ALL, count_epochs(NUM_STEPS, BATCH_SIZE, len(ALL)))
    their = trainer(
        folder, policy(folder, "qwen2", "lora"), rows, KEYS, tmp_path, max_steps=NUM_STEPS, learning_rate=1e-3,
    )  # fmt: skip
    before = {bare(name): weight.detach().clone() for name, weight in their.model.named_parameters()}
    with plain.untouched():
        their.train()
    engine, stored = batches(folder, policy(folder, "qwen2", "lora"), ALL, KEYS)
    steps = []
    for at in range(NUM_STEPS):
        _, batch = reported(stored.batch(engine, at))
        values = engine.forward_backward_custom(batch.examples, batch.loss)
        steps.append({**values(), **engine.optim_step(stored.recipe.adam(at))()})
    logged = [entry for entry in their.state.log_history if "loss" in entry]
    for found, expected in zip(steps, logged, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        assert found["kl"] == pytest.approx(expected["kl"], rel=1e-3, abs=1e-4)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    after = {bare(name): weight.detach() for name, weight in their.model.named_parameters() if weight.requires_grad}
    moved = {bare(name): weight.detach() for name, weight in engine.learner.weights.items()}
    one, other = (torch.cat([(each[n] - before[n]).flatten() for n in after]) for each in (moved, after))
    assert other.norm() > 0.05
    assert plain.apart(one, other) < 1e-3  # of the way gone
