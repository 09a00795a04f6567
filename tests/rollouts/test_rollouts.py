"""Rollouts over the in-process engine: sampled once, graded once, and learned from as the loss says."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runner import graders, methods
from runner.backends.local.keys import Local, Lora
from runner.backends.local.model import prepare
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training.in_process import InProcessEngine
from runner.backends.local.training.learner import Learner
from runner.backends.local.training.recipe import LocalRecipe
from runner.data.kinds.problem import Problem
from runner.data.rows import Message
from runner.errors import RequestError
from runner.graders import Json
from runner.methods.rft import RFT
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record.events import Metrics, Note
from runner.record.samples import Sampling
from runner.rollouts.rollouts import Rollouts
from runner.training.engine import OnAnswer, Sampled, ignore_answer
from runner.training.loop import learn
from tests.backends.local import plain
from tests.training.driving import bits, reported, rounded

pytestmark = pytest.mark.slow

PROMPTS = ["Why is the sky blue?", "How do I keep bread fresh?", "Why?", "Why is the sky blue?"]
ROWS = [Problem((Message(role="user", content=each),), {"reference": str(at)}) for at, each in enumerate(PROMPTS)]
VARIED: dict[str, Json] = {"type": "length", "name": "tried", "unit": "characters", "min": 30, "tolerance": 30}
VOWELS = "return sum(c in 'aeiou0' for c in sample['output_text']) / 20"
METHOD = methods.load("rft")


def python(body: str) -> dict[str, Json]:
    return {"type": "python", "name": "tried", "source": f"def grade(sample, item):\n    {body}"}


def keys(**more: Any) -> RFT:
    found, _ = METHOD.resolve(RFT(grader="x", group_size=4, max_new_tokens=6, batch_size=4, n_epochs=1, **more), 4)
    assert isinstance(found, RFT)
    return found


class Counting(InProcessEngine):
    """Counts the answers that it gives."""

    sampled = 0

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_answer: OnAnswer = ignore_answer
    ) -> list[list[Sampled]]:  # fmt: skip
        self.sampled += len(prompts) * sampling.per_prompt
        return super().sample(prompts, sampling, on_answer)


def engine_of(model: Path, hyperparameters: RFT, folder: Path, steps: int = 4) -> Counting:
    recipe = LocalRecipe(
        method=METHOD, hyperparameters=hyperparameters, learning_rate=1e-2, schedule="constant", warmup_ratio=0.0,
        weight_decay=0.0, max_grad_norm=1.0, num_steps=steps, seed=0, evaluate_every=99, checkpoint_every=2,
        keep_best=False, tokens_at_once=10_000,
    )  # fmt: skip
    scorer = Scorer(prepare(plain.load(model), Local(lora=Lora(rank=4)), seed=3))
    scorer.temperature = hyperparameters.temperature
    return Counting(Learner(scorer, recipe), folder / "checkpoints")


def rollouts_of(engine: Counting, model: Path, folder: Path, grader: str = "") -> Rollouts:
    def reference(rows: Sequence[Any]) -> list[list[float]]:
        scorer = engine.learner.scorer
        with torch.no_grad(), plain_adapter_off(engine):
            return [scorer([row], by_token=True).tokens.logps.tolist() for row in rows]

    made = graders.make(python(grader) if grader else VARIED, "here")
    recipe = engine.learner.recipe
    return Rollouts(folder, ROWS, ChatTokenizer(model), recipe, recipe.hyperparameters, made, None, reference)


def plain_adapter_off(engine: Counting) -> Any:
    """Return what makes all adapters' terms zero within its block."""
    return _Off([weight for name, weight in engine.learner.weights.items() if "lora_B" in name])


class _Off:
    def __init__(self, factors: list[Any]) -> None:
        self.factors, self.held = factors, [each.detach().clone() for each in factors]

    def __enter__(self) -> None:
        for each in self.factors:
            each.data.zero_()

    def __exit__(self, *_: object) -> None:
        for each, held in zip(self.factors, self.held, strict=True):
            each.data.copy_(held)


class NoneHeldOut:
    """No held-out rows."""

    metric, waits = "eval/reward", False

    def __len__(self) -> int:
        return 0


def trained(model: Path, folder: Path, steps: int = 4, **more: Any) -> tuple[Counting, list[Any]]:
    engine = engine_of(model, keys(**more), folder, steps)
    events, _ = reported(learn(engine, engine.learner.recipe, rollouts_of(engine, model, folder), NoneHeldOut()))
    return engine, events


def batch_of(engine: Counting, model: Path, folder: Path, step: int = 0, grader: str = "") -> Any:
    return reported(rollouts_of(engine, model, folder, grader).batch(engine, step))


def test_a_rollout_is_sampled_once_and_its_answers_do_not_depend_on_what_was_drawn_before(
    tiny_model: Path, tmp_path: Path
) -> None:
    one, other = (engine_of(tiny_model, keys(), tmp_path / name) for name in ("one", "other"))
    _, first = batch_of(one, tiny_model, tmp_path / "one")
    _, second = batch_of(one, tiny_model, tmp_path / "one", step=1)
    assert batch_of(other, tiny_model, tmp_path / "other", step=1)[1].examples == second.examples
    assert first.examples != second.examples
    assert one.sampled == 2 * len(ROWS) * 4
    assert batch_of(one, tiny_model, tmp_path / "one")[1] == first
    assert one.sampled == 2 * len(ROWS) * 4, "what is kept is not sampled again"


def test_two_rows_with_one_prompt_have_answers_of_their_own(tiny_model: Path, tmp_path: Path) -> None:
    engine = engine_of(tiny_model, keys(), tmp_path)
    _, batch = batch_of(engine, tiny_model, tmp_path)
    prompts = [example.tokens.prompt for example in batch.examples]
    (one, other) = (each.tokens.answers for each in batch.examples if prompts.count(each.tokens.prompt) == 2)
    assert one != other


def test_other_prompts_are_answered_in_place_of_groups_without_spread(tiny_model: Path, tmp_path: Path) -> None:
    grader = "return 0.5 if item['reference'] in '02' else " + VOWELS.removeprefix("return ")
    engine = engine_of(tiny_model, keys(extra_rounds=9), tmp_path)
    _, batch = batch_of(engine, tiny_model, tmp_path, grader=grader)
    assert batch.values["without_spread"] == 0.5, "figures are of the prompts as they come"
    assert len(batch.examples) == len(ROWS)
    decisive = {tuple(ChatTokenizer(tiny_model).encode_prompt(ROWS[at].given)) for at in (1, 3)}
    assert {tuple(example.tokens.prompt) for example in batch.examples} == decisive
    answers = [answer for example in batch.examples for answer in example.tokens.answers]
    assert len({tuple(answer) for answer in answers}) > len(ROWS), "a prompt that comes again has answers of its own"
    drawn = engine.sampled
    assert drawn > len(ROWS) * 4
    assert not (tmp_path / "rollouts" / "step-00000000" / "round-9").exists(), "the batch was full before"
    assert batch_of(engine, tiny_model, tmp_path, grader=grader)[1] == batch
    assert engine.sampled == drawn, "what is kept is not sampled again"


def test_a_batch_without_any_spread_stays_as_it_is_after_the_last_extra_round(tiny_model: Path, tmp_path: Path) -> None:
    engine = engine_of(tiny_model, keys(extra_rounds=2), tmp_path)
    _, batch = batch_of(engine, tiny_model, tmp_path, grader="return 0.5")
    assert batch.examples == []
    assert engine.sampled == 3 * len(ROWS) * 4


def test_groups_without_spread_have_no_gradient_and_count_in_the_mean(tiny_model: Path, tmp_path: Path) -> None:
    """As if they had been computed, as TRL does."""
    grader = "return 0.5 if item['reference'] in '02' else " + VOWELS.removeprefix("return ")
    engine = engine_of(tiny_model, keys(loss_type="grpo"), tmp_path)
    _, batch = batch_of(engine, tiny_model, tmp_path, grader=grader)
    assert len(batch.examples) == 2
    assert batch.values["without_spread"] == 0.5
    assert batch.loss.total(batch.examples) == len(ROWS)
    engine.forward_backward_custom(batch.examples, batch.loss)()
    halved = plain.gradient(engine.learner.model)
    engine.forward_backward_custom(batch.examples, replace(batch.loss, whole=None))()
    assert plain.apart(2 * halved, plain.gradient(engine.learner.model)) < 1e-5


def test_without_any_spread_the_weights_stay_and_that_is_reported_with_what_it_cost(
    tiny_model: Path, tmp_path: Path
) -> None:
    engine = engine_of(tiny_model, keys(), tmp_path)
    before = bits(engine.learner.weights)
    rollouts = rollouts_of(engine, tiny_model, tmp_path, "return 1.0")
    events, _ = reported(learn(engine, engine.learner.recipe, rollouts, NoneHeldOut()))
    assert bits(engine.learner.weights) == before
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes[0].startswith("all 16 answers have the reward 1: nothing is learned; take a grader with finer")
    assert "so far 16 answers were sampled and graded in " in notes[0]
    assert "(in 2 rollouts by now); so far 32 answers" in notes[1]
    assert [
        event.values["train/loss"] for event in events if isinstance(event, Metrics) and "train/loss" in event.values
    ]


def test_answers_without_a_grade_are_left_out_and_reported(tiny_model: Path, tmp_path: Path) -> None:
    engine = engine_of(tiny_model, keys(), tmp_path)
    grader = "if len(sample['output_text']) % 5 == 0: raise ValueError('fifth')\n    " + VOWELS
    events, batch = batch_of(engine, tiny_model, tmp_path, grader=grader)
    (note,) = [event.text for event in events if isinstance(event, Note)]
    assert "grader tried gave no grade to " in note
    assert "of 16 answers, which are left out: " in note
    assert "fifth" in note
    assert "; so far 16 answers were" in note
    assert 0 < batch.values["ungraded"] < 1


def test_a_reward_by_length_alone_is_reported_once(tiny_model: Path, tmp_path: Path) -> None:
    engine = engine_of(tiny_model, keys(), tmp_path)
    rollouts = rollouts_of(engine, tiny_model, tmp_path)
    events, _ = reported(learn(engine, engine.learner.recipe, rollouts, NoneHeldOut()))
    notes = [event.text for event in events if isinstance(event, Note)]
    assert (
        sum("the number of characters alone decides the reward (100% of its variance)" in each for each in notes) == 1
    )


def test_a_grader_that_grades_nothing_ends_the_run_with_what_it_has_cost(tiny_model: Path, tmp_path: Path) -> None:
    engine = engine_of(tiny_model, keys(), tmp_path)
    with pytest.raises(RequestError) as caught:
        batch_of(engine, tiny_model, tmp_path, grader="return item['nothing']")
    assert str(caught.value).startswith("rft.grader: tried has given none of 16 answers a grade: ")
    assert "KeyError" in str(caught.value)


@pytest.mark.parametrize("loss_type", ["dapo", "rloo"])
def test_beta_holds_the_policy_to_the_base_model(loss_type: str, tiny_model: Path, tmp_path: Path) -> None:
    free, held = (
        trained(tiny_model, tmp_path / str(beta), steps=3, loss_type=loss_type, beta=beta) for beta in (0.0, 0.5)
    )
    figures = [{name for _, values in rounded(events) for name in values} for _, events in (free, held)]
    assert ["train/kl" in each for each in figures] == [False, True]
    assert bits(free[0].learner.weights) != bits(held[0].learner.weights)


def test_several_steps_on_a_rollout_learn_from_the_same_answers_with_ratios_that_leave_one(
    tiny_model: Path, tmp_path: Path
) -> None:
    engine, events = trained(tiny_model, tmp_path, steps=4, updates_per_rollout=2)
    assert engine.sampled == 2 * len(ROWS) * 4
    rewards = [values["train/reward"] for _, values in rounded(events) if "train/reward" in values]
    assert rewards[0] == rewards[1] != rewards[2] == rewards[3]
    assert any(values.get("train/clipped") for _, values in rounded(events))


def test_truncated_answers_are_masked_where_that_is_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    engine = engine_of(tiny_model, keys(mask_truncated=True), tmp_path)
    _, batch = batch_of(engine, tiny_model, tmp_path)
    for example in batch.examples:
        for answer, learned in zip(example.tokens.answers, example.tokens.learned, strict=True):
            assert all(learned) == (answer[-1] == 2)
            assert any(learned) == (answer[-1] == 2)


def test_training_raises_the_reward(tiny_model: Path, tmp_path: Path) -> None:
    engine = engine_of(tiny_model, keys(), tmp_path, steps=30)
    rollouts = rollouts_of(engine, tiny_model, tmp_path, VOWELS)
    events, _ = reported(learn(engine, engine.learner.recipe, rollouts, NoneHeldOut()))
    rewards = [values["train/reward"] for _, values in rounded(events) if "train/reward" in values]
    assert sum(rewards[-5:]) > 1.3 * sum(rewards[:5])


@pytest.mark.parametrize("more", [{}, {"updates_per_rollout": 2, "beta": 0.1}], ids=["plain", "updates and KL"])
def test_a_training_that_stops_anywhere_resumes_to_the_same_bits(
    more: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    whole, events = trained(tiny_model, tmp_path / "whole", steps=4, **more)
    expected, count = set(map(str, rounded(events))), len(events)
    for stopped_at in (1, count // 2, count - 6):
        folder = tmp_path / str(stopped_at)
        engine = engine_of(tiny_model, keys(**more), folder)
        work = learn(engine, engine.learner.recipe, rollouts_of(engine, tiny_model, folder), NoneHeldOut())
        for _ in range(stopped_at):
            next(work)
        work.close()  # as a kill does: no checkpoint is written
        again, rest = trained(tiny_model, folder, steps=4, **more)
        assert bits(again.learner.weights) == bits(whole.learner.weights), stopped_at
        assert set(map(str, rounded(rest))) <= expected
        # An answer that is on the disk is not sampled again.
        assert engine.sampled + again.sampled <= whole.sampled + len(ROWS) * 4
