"""KTO's divergence: whose answer goes with which prompt, and that its estimate is the same by any engine and layout."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from runner import methods
from runner.backends.local.parallel.lanes import Lanes
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training.in_process import InProcessEngine
from runner.backends.local.training.learner import Learner
from runner.errors import StopAsked
from runner.methods.kto import KTO
from runner.models.chat.tokenizer import TokenRow
from runner.record.events import Metrics
from runner.training import mismatched
from runner.training.evaluation import evaluate, mean
from runner.training.examples import Example, Mismatched
from runner.training.loop import train
from runner.training.mismatched import MismatchedRows, mismatched_rows
from runner.training.schedule import batch, span
from tests.backends.local import plain
from tests.backends.local.plain import pair
from tests.training.driving import Listed, bits, reported, rounded
from tests.training.plain_engine import PlainEngine, Store
from tests.training.test_by_primitives import RECIPE as PAIRS_RECIPE
from tests.training.test_by_primitives import adapted, learned

KEYS = KTO(n_epochs=2, batch_size=3, beta=0.3)
RECIPE = replace(PAIRS_RECIPE, method=methods.load("kto"), hyperparameters=KEYS, num_steps=6, evaluate_every=3)
TOKENS = [pair([20 + number, 7, 8], [40 + number] * (1 + number % 3)) for number in range(8)]
MOST = 1000


def numbered(*prompts: int) -> list[TokenRow]:
    """Return rows with these prompts, whose answers are their places from 100."""
    return [pair([prompt], [100 + place]) for place, prompt in enumerate(prompts)]


def donors(rows: Sequence[TokenRow]) -> list[int]:
    return [row.answers[0][0] - 100 for row in rows]


def test_each_prompt_gets_the_answer_of_the_row_before_it_in_its_batch() -> None:
    rows = numbered(*range(8))
    found = MismatchedRows(rows, MOST, 3, seed=5, epochs=2)
    assert len(found) == 16
    for step in range(6):
        numbers = batch(8, 3, 5, step)
        part = [found[place] for place in span(8, 3, step)]
        assert [row.prompt for row in part] == [rows[number].prompt for number in numbers]
        assert donors(part) == [numbers[-1], *numbers[:-1]]


def test_the_batches_of_an_epoch_are_the_spans_of_its_order() -> None:
    assert [[*span(8, 3, step)] for step in range(4)] == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9, 10]]


def test_an_answer_to_the_same_prompt_is_passed_over() -> None:
    rows = numbered(1, 1, 2, 2, 3, 3)  # pairs that were split
    for seed in range(20):
        found = MismatchedRows(rows, MOST, 6, seed)
        assert all(rows[donor].prompt != row.prompt for row, donor in zip(found, donors(found), strict=True))


def test_a_batch_of_one_row_takes_the_answer_of_the_batch_before() -> None:
    found = MismatchedRows(numbered(*range(7)), MOST, 3, seed=1)
    assert donors([found[6]]) == [batch(7, 3, 1, 1)[-1]]


def test_where_all_prompts_are_one_the_answer_is_that_of_the_row_before() -> None:
    found = MismatchedRows(numbered(1, 1, 1), MOST, 3, seed=1)
    order = batch(3, 3, 1, 0)
    assert donors(found) == [order[-1], *order[:-1]]


def test_a_row_with_the_answer_of_another_is_cut_to_the_limit() -> None:
    rows = [pair(range(10, 18), [5]), pair([9], range(30, 40))]
    found = MismatchedRows(rows, 11, 2, seed=0)
    lengths = {len(row.prompt): len(row.answers[0]) for row in found}
    assert lengths == {8: 3, 1: 1}


def test_held_out_rows_are_one_batch_and_losses_without_a_divergence_have_none() -> None:
    splits: dict[Any, Any] = {"train": TOKENS, "validation": TOKENS[:5]}
    held_out, trained = (mismatched_rows(splits, split, RECIPE, MOST) for split in ("validation", "train"))
    assert held_out is not None
    assert trained is not None
    assert (len(held_out), len(trained)) == (5, 16)
    assert held_out.decided_by == (5, RECIPE.seed, 1)
    assert mismatched_rows(splits, "train", PAIRS_RECIPE, MOST) is None
    plain_keys = replace(KEYS, loss_type="apo_zero_unpaired")
    assert mismatched_rows(splits, "train", replace(RECIPE, hyperparameters=plain_keys), MOST) is None


def examples(rows: Sequence[TokenRow], judged: bool) -> Listed:
    """Return rows with a reference a little away from the model, every other one good."""
    targets = [(float(number % 2),) if judged else () for number in range(len(rows))]
    return Listed(Example(row, (-6.2 * len(row.answers[0]),), each) for row, each in zip(rows, targets, strict=True))


def data(train_rows: int = 6) -> tuple[Listed, Listed, Mismatched]:
    tokens: dict[Any, Any] = {"train": TOKENS[:train_rows], "validation": TOKENS[train_rows:]}
    found = {split: mismatched_rows(tokens, split, RECIPE, MOST) for split in tokens}
    parts = {split: examples([*rows], judged=False) for split, rows in found.items() if rows is not None}
    rows, held_out = (examples(each, judged=True) for each in tokens.values())
    return rows, held_out, Mismatched(parts["train"], parts["validation"])


def engine(model: Any, folder: Path, lanes: int = 1, **more: Any) -> InProcessEngine:
    scorer = Scorer(model, packed=more.pop("packed", True))
    scorer.lanes = Lanes(lanes, lanes)
    return InProcessEngine(Learner(scorer, replace(RECIPE, **more)), folder)


@pytest.mark.slow
def test_the_divergence_is_that_of_plain_log_probabilities_whatever_the_packs_and_lanes(tiny_model: Path) -> None:
    part = examples([*MismatchedRows(TOKENS, MOST, 8, seed=0)], judged=False)
    reference = torch.tensor([example.reference_logps for example in part])
    with torch.no_grad():
        expected = (plain.all_logps(plain.lively(tiny_model), [each.tokens for each in part]) - reference).mean().item()
    assert expected != 0
    for layout in ({}, {"tokens_at_once": 9}, {"lanes": 2, "tokens_at_once": 20}, {"packed": False}):
        found = mismatched.of_batch(engine(plain.lively(tiny_model), Path("nowhere"), **layout), part, RECIPE.loss)
        assert found == pytest.approx(max(0.0, expected), rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_the_same_loop_trains_a_plain_engine_to_the_weights_of_the_one_pass_engine(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows, held_out, pairs = data()
    models = [adapted(tiny_model), adapted(tiny_model)]
    before = learned(models[0])
    engines = engine(models[0], tmp_path), PlainEngine(models[1], Store())
    (ours, _), (theirs, _) = (reported(train(each, RECIPE, rows, held_out, None, pairs)) for each in engines)
    for (at, values), (same_at, others) in zip(rounded(ours), rounded(theirs), strict=True):
        assert at == same_at
        assert others == pytest.approx(values, rel=1e-3, abs=1e-4)
    gone, gone_too = (learned(model) - before for model in models)
    assert gone.norm() > 0.05
    assert plain.apart(gone_too, gone) < 1e-3
    # Six steps of three passes, and in each of three evaluations the mismatched rows and the rows.
    assert engines[1].calls.count("forward") == 6 * 2 + 2 * 2
    kl = {at: values["train/kl"] for at, values in rounded(ours) if "train/kl" in values}
    assert len(set(kl.values())) == 6


@pytest.mark.slow
def test_a_training_stopped_early_or_late_resumes_to_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    rows, held_out, pairs = data()
    more: dict[str, Any] = {"lanes": 2, "tokens_at_once": 20, "ema_decay": 0.9}
    whole = engine(adapted(tiny_model), tmp_path / "whole", **more)
    reported(train(whole, RECIPE, rows, held_out, None, pairs))
    for stopped_at in (1, 4):
        folder = tmp_path / f"stopped after {stopped_at} steps"
        stopped = train(engine(adapted(tiny_model), folder, **more), RECIPE, rows, held_out, None, pairs)
        for event in stopped:
            if isinstance(event, Metrics) and event.step == stopped_at and "train/loss" in event.values:
                with pytest.raises(StopAsked):
                    list(chain([stopped.throw(StopAsked())], stopped))
                break
        again = engine(adapted(tiny_model), folder, **more)
        reported(train(again, RECIPE, rows, held_out, None, pairs))
        assert bits(again.learner.result) == bits(whole.learner.result), folder


@pytest.mark.slow
def test_held_out_rows_are_relative_to_the_divergence_of_the_weights_that_are_kept(tiny_model: Path) -> None:
    _, _, pairs = data()
    held_out = examples(TOKENS, judged=True)
    found = engine(plain.lively(tiny_model), Path("nowhere"))
    assert pairs.held_out is not None
    _, rows = reported(evaluate(found, held_out, RECIPE.loss, mismatched=pairs.held_out))
    values = mean(rows)
    with torch.no_grad():
        model = plain.lively(tiny_model)
        apart = [
            (plain.all_logps(model, [each.tokens])[0, 0] - each.reference_logps[0]).item()
            for each in (pairs.held_out[number] for number in range(len(pairs.held_out)))
        ]
        rewards = [
            (plain.all_logps(model, [each.tokens])[0, 0] - each.reference_logps[0]).item() * 0.3 for each in held_out
        ]
    assert values["eval/kl"] == pytest.approx(max(0.0, sum(apart) / len(apart)), rel=1e-4, abs=1e-4)
    good, bad = (sum(rewards[start::2]) / 4 for start in (1, 0))
    assert values["eval/reward_chosen"] == pytest.approx(good, rel=1e-4, abs=1e-4)
    assert values["eval/reward_margin"] == pytest.approx(good - bad, rel=1e-4, abs=1e-4)
