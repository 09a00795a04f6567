"""A reward model: losses and gradients are TRL's, and what is saved is loaded by transformers and scores the same."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runner import methods
from runner.backends.local.keys import Local, Lora
from runner.backends.local.model import load, prepare, save
from runner.backends.local.reward_model import head
from runner.backends.local.reward_model.scorer import RewardScorer, ends
from runner.backends.local.scoring.scorer import exact
from runner.backends.local.training.in_process import InProcessEngine
from runner.backends.local.training.learner import Learner
from runner.errors import ModelError, StopAsked
from runner.methods.reward import Reward
from runner.models.chat.row_tokens import TokenRow
from runner.models.chat.tokenizer import ChatTokenizer
from runner.models.source import ModelIdentity
from runner.record.events import Metrics
from runner.training.examples import Example
from runner.training.loop import train
from tests.backends.local import plain
from tests.backends.local.training.test_trl_parity import AWKWARD, assert_same, gradients, turns
from tests.training.driving import Listed, bits, reported
from tests.training.test_by_primitives import RECIPE as PAIRS_RECIPE

pytestmark = pytest.mark.slow

trl = pytest.importorskip("trl", reason="TRL is a development dependency (pip install '.[dev]')")

KEYS = Reward(n_epochs=1, batch_size=2)
RECIPE = replace(PAIRS_RECIPE, method=methods.load("reward"), hyperparameters=KEYS, keep_best=False)
ROWS = list(AWKWARD.values())


def model_of(folder: Path, tuning: str = "lora") -> Any:
    """Return a model with a head, ready to learn and some way from where it starts, the same each time."""
    found = prepare(head.with_head(plain.lively(folder), seed=3), Local(tuning=tuning, lora=Lora(rank=4)), seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in found.named_parameters():
            if weight.requires_grad and ("lora" in name or "score" in name):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return found.eval()


def engine(model: Any, folder: Path = Path("nowhere"), packed: bool = True, **more: Any) -> InProcessEngine:
    return InProcessEngine(Learner(RewardScorer(model, packed), replace(RECIPE, **more)), folder)


def examples(folder: Path, rows: Sequence[Any] = ROWS) -> Listed:
    tokenizer = ChatTokenizer(folder)
    return Listed(Example(tokenizer.row(row), None) for row in rows)


def theirs(model: Any, folder: Path, keys: Reward, tmp_path: Path) -> tuple[dict[str, float], Any]:
    """Return the loss, metrics and gradient of TRL's trainer for all rows as one batch."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    data = [{key: turns(row.prompt + getattr(row, key)) for key in ("chosen", "rejected")} for row in ROWS]
    arguments = trl.RewardConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=len(ROWS), bf16=False, use_cpu=True, report_to=[],
        gradient_checkpointing=False, max_length=2048, disable_tqdm=True, disable_dropout=False,
        center_rewards_coefficient=keys.center_rewards_coefficient or None,
    )  # fmt: skip
    trainer = trl.RewardTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(data),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
    )  # fmt: skip
    trainer.model.eval()
    trainer.model.zero_grad()
    with plain.untouched():
        batch = trainer.data_collator([trainer.train_dataset[number] for number in range(len(ROWS))])
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
    alike = sum(row.chosen == row.rejected for row in ROWS) / len(ROWS) / 2  # TRL counts a tie as wrong
    shown = trainer._metrics["eval"]
    values = {"reward_accuracy": shown["accuracy"][0] + alike, "reward_margin": shown["margin"][0]}
    return {"loss": loss.item(), **values}, gradients(trainer.model)


@pytest.mark.parametrize(
    ("architecture", "tuning", "packed", "coefficient"),
    [
        ("llama", "lora", True, 0.0),
        ("gpt2", "full", True, 0.01),
        pytest.param("qwen2", "full", True, 0.01, marks=pytest.mark.exhaustive),
        pytest.param("llama", "lora", False, 0.0, marks=pytest.mark.exhaustive),
    ],
)
def test_loss_and_gradient_of_awkward_pairs_are_those_of_trl(
    architecture: str, tuning: str, packed: bool, coefficient: float, tiny_models: Any, tmp_path: Path
) -> None:
    folder = tiny_models(architecture)
    keys = replace(KEYS, center_rewards_coefficient=coefficient)
    mine = engine(model_of(folder, tuning), packed=packed, hyperparameters=keys, tokens_at_once=300)
    values = mine.forward_backward_custom(examples(folder), mine.learner.recipe.loss)()
    expected = theirs(model_of(folder, tuning), folder, keys, tmp_path)
    assert_same((dict(values), gradients(mine.learner.model)), expected)
    assert "score" in "".join(expected[1])


def test_packed_rewards_are_those_that_transformers_gives_each_answer_alone(tiny_model: Path) -> None:
    model = head.with_head(plain.lively(tiny_model), seed=3)
    padding = model.config.pad_token_id
    rows = [
        *(example.tokens for example in examples(tiny_model, ROWS[:4])),
        # Where an answer ends with the padding token, transformers looks before it.
        *([TokenRow([5, 6], ([7, padding], [padding, padding]), ([True] * 2,) * 2)]),
    ]
    scorer = RewardScorer(model)
    assert exact(scorer, rows)
    found = scorer(rows).rewards
    with scorer.released(), plain.untouched(), torch.no_grad():
        alone = [
            [
                model(input_ids=torch.tensor([row.prompt + answer]), use_cache=False).logits[0, 0]
                for answer in row.answers
            ]
            for row in rows
        ]
    torch.testing.assert_close(found, torch.tensor(alone), rtol=1e-4, atol=1e-5)
    assert scorer(rows).logps.isnan().all()


def test_an_answer_ends_at_its_last_token_that_is_no_padding() -> None:
    rows = [plain.pair([5, 6, 7], [8, 9], [8, 2]), plain.pair([4, 2], [2, 2], [3])]
    assert list(ends(rows, padding=2)) == [4, 5, 7, 11]


def test_the_head_follows_from_the_seed_alone(tiny_model: Path) -> None:
    one, other, third = (head.with_head(plain.load(tiny_model), seed).score.weight for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    assert one.dtype == torch.float32


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_is_saved_scores_as_the_model_that_was_trained(tuning: str, tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = model_of(tiny_model, tuning)
    rows = [example.tokens for example in examples(tiny_model, ROWS[:4])]
    with torch.no_grad():
        expected = RewardScorer(deepcopy(model))(rows).rewards
    assert expected is not None
    whole = head.merged(model, "float32")
    with torch.no_grad():  # the model continues to be evaluated, and shares its frozen weights with others
        torch.testing.assert_close(RewardScorer(model)(rows).rewards, expected)
    save(whole, tmp_path / "model", "plan", ModelIdentity(f"path:{tiny_model}", "sha256:0"))
    with plain.untouched(), torch.no_grad():
        found, reported_of = AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "model", output_loading_info=True
        )
        assert not reported_of["missing_keys"]
        assert not reported_of["unexpected_keys"]
        alone = [found.eval()(input_ids=torch.tensor([row.prompt + row.answers[1]])).logits[0, 0] for row in rows]
    torch.testing.assert_close(torch.stack(alone), expected[:, 1], rtol=1e-4, atol=1e-5)
    assert ChatTokenizer(tmp_path / "model").digest == ChatTokenizer(tiny_model).digest
    with pytest.raises(ModelError, match="a reward model, which scores answers and gives none"):
        load(tmp_path / "model")


def test_a_model_without_a_head_is_no_reward_model(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="no reward model, which has a head with one output; train one with"):
        head.load(tiny_model)


def test_a_training_stopped_in_the_middle_resumes_to_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    rows, held_out = examples(tiny_model, ROWS[:4]), examples(tiny_model, ROWS[4:6])

    def trained(folder: Path) -> tuple[InProcessEngine, Any]:
        found = engine(model_of(tiny_model), folder)
        return found, train(found, RECIPE, rows, held_out)

    whole, events = trained(tmp_path / "whole")
    reported(events)
    stopped = trained(tmp_path / "stopped")[1]
    for event in stopped:
        if isinstance(event, Metrics) and event.step == 2 and "train/loss" in event.values:
            with pytest.raises(StopAsked):
                tuple(each for part in ([stopped.throw(StopAsked())], stopped) for each in part)
            break
    again, rest = trained(tmp_path / "stopped")
    reported(rest)
    assert bits(again.learner.result) == bits(whole.learner.result)
