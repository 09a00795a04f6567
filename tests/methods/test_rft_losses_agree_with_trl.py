"""Each loss by reward is that of TRL's trainers, to 1e-4, on fixed answers: advantages, ratios, loss and gradient.

TRL's own `_compute_loss` and its scoring of answers run as they are; only its answers are given (`rollout_func`).
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.backends.local.scoring.scorer import Scorer
from runner.methods import Experience
from runner.methods.rft import METHOD, RFT
from runner.methods.rft.advantages import advantages
from runner.methods.rft.losses import LOSSES
from tests.backends.local import plain
from tests.methods.test_losses_agree_with_trl import load, tokenizer

trl = pytest.importorskip("trl", reason="TRL is a development dependency (pip install '.[dev]')")

pytestmark = pytest.mark.slow

LIMIT, GROUP, END = 12, 4, 2
PROMPTS = ["Why is the sky blue?", "How do I keep bread fresh?"]
REWARDS = [[0.1, 0.9, 0.4, 0.4], [1.0, 0.0, 0.25, 0.7]]
ANSWERS = [
    [[30, 31, END], [40] * LIMIT, [50, 51, 52, 53, END], [60, END]],
    [[70, 71, 72, END], [80, END], list(range(90, 90 + LIMIT)), [99, 98, 97, 96, 95, END]],
]
"""Of each group one answer is cut off at the limit."""

THEIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Our keys, and TRL's for the same.
    "grpo": ({"epsilon_high": 0.2}, {"loss_type": "grpo"}),
    "grpo, KL": ({"beta": 0.3}, {"loss_type": "grpo", "beta": 0.3}),
    "dr_grpo": ({}, {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    "dapo": ({}, {"loss_type": "dapo", "epsilon_high": 0.28}),
    "dapo, KL, masked": (
        {"beta": 0.1, "mask_truncated": True},
        {"loss_type": "dapo", "epsilon_high": 0.28, "beta": 0.1, "mask_truncated_completions": True},
    ),
    "gspo": (
        {"epsilon": 3e-4, "epsilon_high": 4e-4},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4},
    ),
    "gspo, KL": (
        {"epsilon": 0.2, "epsilon_high": 0.2, "beta": 0.3},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "beta": 0.3},
    ),
    "rloo": ({}, {"beta": 0.0}),
    "rloo, KL": ({"beta": 0.2}, {"beta": 0.2}),
    "cispo": ({}, {"loss_type": "cispo", "epsilon_high": 5.0}),
}


def prompt_ids(folder: Path) -> list[list[int]]:
    made = tokenizer(folder)
    turns = [[{"role": "user", "content": each}] for each in PROMPTS]
    return [made.apply_chat_template(each, add_generation_prompt=True, return_dict=False) for each in turns]


def trainer_of(name: str, keys: dict[str, Any], folder: Path, tmp_path: Path) -> Any:
    """Return TRL's trainer with a policy that has moved away from its reference, and given answers."""
    from datasets import Dataset

    def given(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        return {
            "prompt_ids": [ids for ids in prompt_ids(folder) for _ in range(GROUP)],
            "completion_ids": [answer for group in ANSWERS for answer in group],
            "logprobs": [[0.0] * len(answer) for group in ANSWERS for answer in group],
        }

    def rewards(completions: list[Any], **_: Any) -> list[float]:
        return [reward for group in REWARDS for reward in group]

    rows = [{"prompt": [{"role": "user", "content": each}]} for each in PROMPTS]
    settings = {
        "output_dir": str(tmp_path), "per_device_train_batch_size": GROUP * len(PROMPTS), "num_generations": GROUP,
        "max_completion_length": LIMIT, "bf16": False, "use_cpu": True, "report_to": [], "shuffle_dataset": False,
        "gradient_checkpointing": False, "num_iterations": 2, **keys,
    }  # fmt: skip
    kind, config = (trl.RLOOTrainer, trl.RLOOConfig) if name == "rloo" else (trl.GRPOTrainer, trl.GRPOConfig)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = kind(
            model=str(folder), reward_funcs=rewards, args=config(**settings), train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer(folder), **({} if name == "rloo" else {"rollout_func": given}),
        )  # fmt: skip
    if name == "rloo":  # which knows no `rollout_func`
        prompts, answers = given([], None)["prompt_ids"], [answer for group in ANSWERS for answer in group]
        trainer._generate = lambda *_: (prompts, answers, [[{"role": "assistant", "content": ""}] for _ in answers])
    trainer.model.train()
    return trainer, rows


def ours(keys: RFT, policy: Any, old: Any, reference: Any, folder: Path) -> tuple[Any, Any, list[list[float]]]:
    """Return our loss with its gradient in `policy`, the metrics, and the advantages."""
    rows = [plain.pair(prompt, *group) for prompt, group in zip(prompt_ids(folder), ANSWERS, strict=True)]
    if keys.mask_truncated:
        whole = [tuple([answer[-1] == END] * len(answer) for answer in group) for group in ANSWERS]
        rows = [replace(row, learned=learned) for row, learned in zip(rows, whole, strict=True)]
    with torch.no_grad():
        known = [Scorer(each, packed=False)(rows, by_token=True).tokens.logps for each in (old, reference)]
    chosen, rewards = LOSSES[keys.loss_type], [list(each) for each in REWARDS]
    if chosen.kl_in_reward:
        apart = Scorer(old, packed=False)(rows, by_token=True)
        kl = apart.summed(known[0] - known[1])
        rewards = [
            [r - keys.beta * k for r, k in zip(*each, strict=True)] for each in zip(rewards, kl.tolist(), strict=True)
        ]
    better = [advantages(group, chosen.baseline) for group in rewards]
    scores = Scorer(policy, packed=False)(rows, by_token=True)
    experience = Experience(torch.tensor(better), known[0], known[1] if keys.beta else None)
    loss, metrics = METHOD.loss(replace(scores, experience=experience), None, keys)
    counts = [tuple(map(sum, row.learned)) for row in rows]
    weights = torch.tensor([METHOD.weight(each, keys) for each in counts])
    value = (loss * weights).sum() / weights.sum()
    value.backward()
    return value, metrics, better


@pytest.mark.parametrize("case", THEIRS)
def test_a_loss_is_that_of_trls_trainer(case: str, tiny_model: Path, tmp_path: Path) -> None:
    name, (own, theirs) = case.partition(",")[0], THEIRS[case]
    keys, _ = METHOD.resolve(RFT(grader="x", loss_type=name, max_new_tokens=LIMIT, **own), 100)
    trainer, rows = trainer_of(name, theirs, tiny_model, tmp_path)
    # Three policies: the reference, the one that sampled, and the one that learns, so that ratios are not all 1.
    reference, old, policy = load(tiny_model), load(tiny_model, 0.2), load(tiny_model, 0.25)
    trainer.model.load_state_dict(old.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = trainer._generate_and_score_completions([row for row in rows for _ in range(GROUP)])
    trainer.model.load_state_dict(policy.state_dict())
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    expected = trainer._compute_loss(trainer.model, batch)
    expected.backward()
    found, _, better = ours(keys, policy, old, reference, tiny_model)
    assert torch.tensor(better).flatten().tolist() == pytest.approx(batch["advantages"].tolist(), rel=1e-4, abs=1e-5)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert plain.apart(plain.gradient(policy), plain.gradient(trainer.model)) < 1e-4


def test_the_log_probabilities_of_tokens_are_trls(tiny_model: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of("grpo", {"temperature": 0.7}, tiny_model, tmp_path)
    trainer.model.load_state_dict(load(tiny_model, 0.2).state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = trainer._generate_and_score_completions([row for row in rows for _ in range(GROUP)])
    theirs = batch["old_per_token_logps"][batch["completion_mask"].bool()]
    groups = [plain.pair(prompt, *group) for prompt, group in zip(prompt_ids(tiny_model), ANSWERS, strict=True)]
    for packed in (True, False):
        scorer = Scorer(load(tiny_model, 0.2), packed=packed)
        scorer.temperature = 0.7
        with torch.no_grad():
            found = scorer(groups, by_token=True).tokens
        assert found is not None
        torch.testing.assert_close(found.logps, theirs, rtol=1e-4, atol=1e-4)


def test_every_loss_is_compared_with_trls() -> None:
    assert {name.partition(",")[0] for name in THEIRS} == set(LOSSES)
