"""Any loss through `forward` and the weighted cross entropy: the gradients and the training of the one-pass engine."""

import math
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runner import methods
from runner.backends.local.keys import Local, Lora
from runner.backends.local.model import prepare
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training.in_process import InProcessEngine
from runner.backends.local.training.learner import Learner
from runner.backends.local.training.recipe import LocalRecipe
from runner.errors import RequestError, StopAsked
from runner.methods.dpo import DPO
from runner.methods.dpo.losses import LOSSES
from runner.methods.sft import SFT
from runner.models.chat.tokenizer import TokenRow
from runner.record.events import Metrics, Note
from runner.record.samples import Sampling
from runner.training import by_primitives
from runner.training.engine import problems
from runner.training.evaluation import evaluate
from runner.training.examples import Example
from runner.training.loop import train
from tests.backends.local import plain
from tests.backends.local.plain import AWKWARD, pair
from tests.training.driving import Listed, reported, rounded
from tests.training.plain_engine import PlainEngine, Store

pytestmark = pytest.mark.slow

DPO_KEYS = DPO(n_epochs=1, batch_size=2, beta=0.1, rpo_alpha=0.0)
RECIPE = LocalRecipe(
    method=methods.load("dpo"), hyperparameters=DPO_KEYS, learning_rate=1e-3, schedule="cosine", warmup_ratio=0.1,
    weight_decay=0.1, max_grad_norm=1.0, num_steps=5, seed=0, evaluate_every=3, checkpoint_every=2, keep_best=True,
    tokens_at_once=100,
)  # fmt: skip
SFT_RECIPE = replace(RECIPE, method=methods.load("sft"), hyperparameters=SFT(n_epochs=1, batch_size=2))
RECIPES = {
    "sigmoid": RECIPE,
    "ipo": replace(RECIPE, hyperparameters=replace(DPO_KEYS, loss_type="ipo", beta=0.5)),
    "sigmoid and RPO term": replace(RECIPE, hyperparameters=replace(DPO_KEYS, rpo_alpha=0.7)),
    "sft": SFT_RECIPE,
}
ROWS = [pair(range(10, 16), [number, 5, 6], [number + 1, 7]) for number in range(20, 28)]


def examples(recipe: LocalRecipe, rows: list[TokenRow]) -> Listed:
    """Return rows for a recipe's loss: pairs, with a reference that the model is away from, or one answer each."""
    if recipe.method.kind == "preference":
        return Listed(Example(row, (-18.0, -12.0) if recipe.loss.has_reference else None) for row in rows)
    halves = [replace(row, answers=row.answers[:1], learned=row.learned[:1]) for row in rows]
    return Listed(example for row in halves if any((example := Example(row, None)).num_learned))


def in_process(model: Any, recipe: LocalRecipe, folder: Path) -> InProcessEngine:
    return InProcessEngine(Learner(Scorer(model), recipe), folder)


def adapted(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return prepare(plain.load(folder).to(dtype), Local(lora=Lora(rank=4)), seed=3)


def learned(model: Any) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters() if weight.requires_grad])


@pytest.fixture(scope="module")
def lively(tiny_model: Path) -> InProcessEngine:
    return in_process(plain.lively(tiny_model), RECIPE, Path("nowhere"))


@pytest.mark.parametrize("loss_type", [*LOSSES, "sft"])
def test_two_passes_give_the_gradient_and_the_values_of_one(loss_type: str, lively: InProcessEngine) -> None:
    recipe = RECIPES.get(loss_type, RECIPE)
    if loss_type in LOSSES:
        smoothing = 0.1 if "label_smoothing" in LOSSES[loss_type].needs else 0.0
        keys = replace(DPO_KEYS, loss_type=loss_type, rpo_alpha=0.3, gamma=0.5, label_smoothing=smoothing)
        recipe = replace(RECIPE, hyperparameters=keys)
    # Without rows that have an answer of no learned token, whose odds are infinite for ORPO.
    batch = examples(recipe, AWKWARD[:3] + AWKWARD[4:8])
    one = lively.forward_backward_custom(batch, recipe.loss)()
    gradient = plain.gradient(lively.learner.model)
    two = by_primitives.forward_backward_custom(lively, batch, recipe.loss)()
    assert two == pytest.approx(one, rel=1e-5, abs=1e-5)
    assert plain.apart(plain.gradient(lively.learner.model), gradient) < 1e-5


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_loop_trains_a_plain_engine_to_the_weights_of_the_one_pass_engine(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    recipe, models = RECIPES[name], [adapted(tiny_model), adapted(tiny_model)]
    before, store = learned(models[0]), Store()
    rows, held_out = examples(recipe, ROWS[:6]), examples(recipe, ROWS[6:])
    engines = in_process(models[0], recipe, tmp_path), PlainEngine(models[1], store)
    (ours, step), (theirs, same_step) = (reported(train(engine, recipe, rows, held_out)) for engine in engines)
    assert step == same_step
    for (at, values), (same_at, others) in zip(rounded(ours), rounded(theirs), strict=True):
        assert at == same_at
        values = {key: value for key, value in values.items() if not key.endswith("token_accuracy")}
        known = {key: value for key, value in others.items() if not key.endswith("token_accuracy")}
        assert known == pytest.approx(values, rel=1e-3, abs=1e-5)
    gone, gone_too = (learned(model) - before for model in models)
    assert gone.norm() > 0.05
    assert plain.apart(gone_too, gone) < 1e-3  # of the way gone, which is a small part of the weights
    assert list(store.states) == ["step-00000002", "step-00000004", "step-00000005"]
    assert store.best is not None
    steps = engines[1].calls.count("optim_step")
    assert (steps, engines[1].calls.count("forward_backward")) == (5, 5)


def test_a_stopped_training_of_a_plain_engine_continues_from_its_store_to_the_same_weights(tiny_model: Path) -> None:
    models = [adapted(tiny_model), adapted(tiny_model), adapted(tiny_model)]
    rows, held_out = examples(RECIPE, ROWS[:6]), examples(RECIPE, ROWS[6:])
    reported(train(PlainEngine(models[0], Store()), RECIPE, rows, held_out))
    store = Store()
    stopped = train(PlainEngine(models[1], store), RECIPE, rows, held_out)
    for event in stopped:
        if isinstance(event, Metrics) and event.step == 2 and "train/loss" in event.values:
            break
    with pytest.raises(StopAsked):
        list(chain([stopped.throw(StopAsked())], stopped))
    events, _ = reported(train(PlainEngine(models[2], store), RECIPE, rows, held_out))
    assert [note.text for note in events if isinstance(note, Note)] == [
        "resumed after 2 steps; this engine does not promise the last bits of an unbroken run"
    ]
    torch.testing.assert_close(learned(models[2]), learned(models[0]))


def test_token_accuracy_is_no_number_where_an_engine_does_not_know_the_likeliest_tokens(tiny_model: Path) -> None:
    recipe = RECIPES["sft"]
    _, rows = reported(evaluate(PlainEngine(adapted(tiny_model), Store()), examples(recipe, ROWS), recipe.loss))
    assert all(math.isnan(row["token_accuracy"]) and math.isfinite(row["loss"]) for row in rows)


def test_a_recipe_is_refused_by_an_engine_that_lacks_what_it_asks_for(tiny_model: Path) -> None:
    engine, rows = PlainEngine(adapted(tiny_model), Store()), examples(RECIPE, ROWS)
    engine.abilities = replace(engine.abilities, clips=False)
    with pytest.raises(RequestError, match="max_grad_norm: got 1, but the engine clips no gradients; set it to null"):
        reported(train(engine, RECIPE, rows, Listed()))
    assert engine.calls == []
    assert problems(engine.abilities, None, ["lora.rank", "lora.dropout"]) == [
        "lora.dropout: the service has no dropout; leave it out."
    ]


def test_both_engines_give_the_same_log_probabilities_token_by_token(lively: InProcessEngine, tiny_model: Path) -> None:
    theirs = PlainEngine(plain.lively(tiny_model), Store()).forward(AWKWARD)
    packed = lively.forward(AWKWARD)
    with lively.learner.scorer.released():
        alone = in_process_unpacked(tiny_model).forward(AWKWARD)
    for found in (packed, alone):
        np.testing.assert_allclose(found.logps, theirs.logps, rtol=1e-4, atol=1e-4)
        assert found.likeliest is not None
        assert found.likeliest.shape == found.logps.shape


def in_process_unpacked(folder: Path) -> InProcessEngine:
    return InProcessEngine(Learner(Scorer(plain.lively(folder), packed=False), RECIPE), Path("nowhere"))


def test_the_weighted_cross_entropy_has_a_weight_for_each_token(lively: InProcessEngine) -> None:
    ours = lively.forward(AWKWARD)
    weights = np.random.default_rng(0).normal(size=len(ours.logps))
    again = lively.forward_backward(AWKWARD, weights)
    np.testing.assert_allclose(again.logps, ours.logps, rtol=1e-4, atol=1e-4)
    assert again.likeliest is not None
    assert (again.likeliest == ours.likeliest).all()
    found = plain.gradient(lively.learner.model)
    model = lively.learner.model
    with lively.learner.scorer.released(), plain.untouched():
        theirs = PlainEngine(model, Store())
        theirs.forward_backward(AWKWARD, weights.astype(np.float32))
    assert plain.apart(found, plain.gradient(model)) < 1e-4


def test_both_engines_give_the_same_greedy_answers(lively: InProcessEngine, tiny_model: Path) -> None:
    prompts, how = [[5, 6, 7], [8, 9], list(range(20, 40))], Sampling(max_new_tokens=5, per_prompt=2)
    ours, theirs = lively.sample(prompts, how), PlainEngine(plain.lively(tiny_model), Store()).sample(prompts, how)
    assert [len(answers) for answers in ours] == [2, 2, 2]
    for one, other in zip(chain(*ours), chain(*theirs), strict=True):
        assert (one.ids, one.ended) == (other.ids, other.ended)
        assert one.logps == pytest.approx(other.logps, abs=1e-4)
