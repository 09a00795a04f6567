"""The training loop over the in-process engine: packs, metering, evaluation, and the loop as a whole."""

import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import methods
from runner.backends.local.keys import Local, Lora, Runtime
from runner.backends.local.model import prepare
from runner.backends.local.parallel.lanes import Lanes
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training import checkpoint
from runner.backends.local.training.in_process import InProcessEngine, result_weights
from runner.backends.local.training.learner import Learner
from runner.backends.local.training.recipe import LocalRecipe
from runner.errors import RunnerError, StopAsked
from runner.methods.dpo import DPO
from runner.methods.sft import SFT
from runner.record.events import Event, Metrics, Note
from runner.training import evaluation
from runner.training.engine import Pending
from runner.training.evaluation import evaluate, evaluate_reference
from runner.training.examples import Example, Examples
from runner.training.loop import train
from runner.training.meter import Meter
from tests.backends.local import plain
from tests.backends.local.plain import AWKWARD, pair
from tests.training.driving import Listed, bits, reported, rounded

pytestmark = pytest.mark.slow

RECIPE = LocalRecipe(
    method=methods.load("dpo"), hyperparameters=DPO(n_epochs=1, batch_size=2, beta=0.1, rpo_alpha=0.1),
    learning_rate=1e-3, schedule="cosine", warmup_ratio=0.1, weight_decay=0.0, max_grad_norm=1.0, num_steps=100, seed=0,
    evaluate_every=9, checkpoint_every=9, keep_best=False, tokens_at_once=10_000,
)  # fmt: skip
SFT_KEYS = {"method": methods.load("sft"), "hyperparameters": SFT(n_epochs=1, batch_size=2)}


@pytest.fixture(scope="module")
def scorer(tiny_model: Path) -> Scorer:
    return Scorer(plain.lively(tiny_model))


def backward(learner: Learner, examples: Sequence[Example]) -> dict[str, float]:
    """Add the gradient of a batch; return its loss and metrics."""
    return dict(InProcessEngine(learner, Path("nowhere")).forward_backward_custom(examples, learner.recipe.loss)())


@pytest.mark.parametrize("method", ["dpo", "sft"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_batch_has_the_same_gradient_however_it_is_cut(method: str, scorer: Scorer, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.sampled_from(AWKWARD), min_size=2, max_size=6))
    room = data.draw(st.integers(1, 200))
    examples = [Example(row, (-3.0, -4.0)) for row in rows]
    if method == "sft":
        halves = [replace(row, answers=row.answers[:1], learned=row.learned[:1]) for row in rows]
        examples = [example for row in halves if any((example := Example(row, None)).num_learned)]
    recipe = replace(RECIPE, **(SFT_KEYS if method == "sft" else {}))
    found = []
    for at_once in (10_000, room):
        values = backward(Learner(scorer, replace(recipe, tokens_at_once=at_once)), examples) if examples else {}
        found.append((values, values and plain.gradient(scorer.model)))
    (whole, gradient), (cut, other) = found
    assert cut == pytest.approx(whole, rel=1e-5, abs=1e-6)
    assert not examples or plain.apart(other, gradient) < 1e-5 or gradient.norm() < 1e-5


@pytest.mark.parametrize("num_lanes", [2, 3])
def test_lanes_come_to_what_one_pack_after_the_other_results_in(num_lanes: int, tiny_model: Path) -> None:
    """Several times over: which lane is first is left to chance."""
    scorer = Scorer(plain.lively(tiny_model))
    batch = [Example(row, (-3.0, -4.0)) for row in AWKWARD]
    alone = backward(Learner(scorer, replace(RECIPE, tokens_at_once=100)), batch)
    gradient = plain.gradient(scorer.model)
    scorer.lanes = Lanes(num_lanes, num_lanes)
    seen = set()
    for _ in range(5):
        values = backward(Learner(scorer, replace(RECIPE, tokens_at_once=100 * num_lanes)), batch)
        found = plain.gradient(scorer.model)
        assert values == pytest.approx(alone, rel=1e-5, abs=1e-6)
        assert plain.apart(found, gradient) < 1e-5
        seen.add(found.numpy().tobytes())
    assert len(seen) == 1, "the sum is the same in every bit"


def test_a_text_without_a_prompt_counts_the_tokens_that_can_be_predicted(tiny_model: Path) -> None:
    rows = [pair([], [5, 6, 7]), pair([8, 9], [10, 11])]
    learner = Learner(Scorer(plain.lively(tiny_model)), replace(RECIPE, **SFT_KEYS))
    loss = backward(learner, [Example(row, None) for row in rows])["loss"]
    assert loss == pytest.approx(-plain.all_logps(plain.lively(tiny_model), rows).sum().item() / 4, rel=1e-5)


def meter(scorer: Scorer) -> Meter:
    return Meter(InProcessEngine(Learner(scorer, RECIPE), Path("nowhere")), RECIPE)


def measured(loss: float) -> tuple[Pending, ...]:
    return (lambda: {"loss": loss}), dict


def test_values_are_read_when_the_next_step_is_under_way(scorer: Scorer) -> None:
    reading = meter(scorer)
    assert reported(reading.add(1, measured(1.5), 10))[0] == []
    events, _ = reported(reading.add(2, measured(2.5), 10))
    assert rounded(events) == [(1, {"train/loss": 1.5, "train/learning_rate": pytest.approx(1e-4)})]
    assert rounded(reported(reading.flush())[0]) == [
        (2, {"train/loss": 2.5, "train/learning_rate": pytest.approx(2e-4)})
    ]
    assert reported(reading.flush())[0] == []


@pytest.mark.parametrize("when", ["before it is handed in, as on a CPU", "until it is read, as on a device"])
def test_the_speed_of_a_step_is_that_of_its_own_tokens_also_where_it_is_read_at_once(when: str, scorer: Scorer) -> None:
    reading, on_device = meter(scorer), when.startswith("until")

    def late() -> dict[str, float]:
        time.sleep(0.2 * on_device)
        return {"loss": 1.5}

    time.sleep(0.2 * (not on_device))
    reported(reading.add(1, (late,), 10))
    ((metrics, _), _) = reported(reading.flush())
    # 10 tokens in 0.2 s or more, however busy the machine is.
    assert 0 < metrics.values["system/tokens_per_second"] <= 50


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_reported_with_its_step(value: float, scorer: Scorer) -> None:
    reading = meter(scorer)
    reported(reading.add(1, measured(1.5), 10))
    reported(reading.add(2, measured(value), 10))
    with pytest.raises(RunnerError, match=rf"the loss is {value} after 1 steps; .* checkpoint is kept; try again"):
        reported(reading.flush())


SETTINGS = Local(lora=Lora(rank=4))
ROWS = [pair(range(10, 16), [number, 5, 6], [number + 1, 7]) for number in range(20, 28)]


def learner(folder: Path, settings: Local = SETTINGS, lanes: int = 1, **more: Any) -> Learner:
    scorer = Scorer(prepare(plain.load(folder), settings, seed=3), noise=settings.neftune_alpha)
    scorer.lanes = Lanes(lanes, lanes)
    return Learner(scorer, replace(RECIPE, num_steps=12, checkpoint_every=5, evaluate_every=4, **more))


def examples() -> Listed:
    return Listed(Example(row, (-18.0, -12.0)) for row in ROWS)


def trained(
    learner: Learner, rows: Examples, held_out: Examples, folder: Path, kind: type[InProcessEngine] = InProcessEngine
) -> Generator[Event, None, int]:
    """Train a learner by the loop, with its checkpoints in a folder."""
    return train(kind(learner, folder), learner.recipe, rows, held_out)


def test_the_loop_measures_each_step_and_judges_at_the_start_and_every_so_often(
    tiny_model: Path, tmp_path: Path
) -> None:
    events, step = reported(trained(learner(tiny_model), examples()[:6], examples()[6:], tmp_path))
    assert step == 12
    found = rounded(events)
    assert [step for step, values in found if "train/loss" in values] == list(range(1, 13))
    assert [step for step, values in found if "eval/loss" in values] == [0, 4, 8]
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-00000012"]
    assert result_weights(tmp_path, False) == tmp_path / "step-00000012" / "weights.safetensors"


class Broken(InProcessEngine):
    """Its loss is not a number from the eighth step on."""

    def forward_backward_custom(self, *given: Any) -> Pending:
        step, values = self._step, super().forward_backward_custom(*given)
        return (lambda: {**values(), "loss": float("nan")}) if step >= 7 else values


def test_the_untrained_model_is_evaluated_by_the_reference_log_probabilities_alone(tiny_model: Path) -> None:
    sound = learner(tiny_model)
    with torch.no_grad():
        known = [tuple(sound.scorer([row]).logps[0].tolist()) for row in AWKWARD]
    held_out = Listed(Example(row, logps) for row, logps in zip(AWKWARD, known, strict=True))
    _, computed = reported(evaluate(InProcessEngine(sound, Path("nowhere")), held_out, sound.recipe.loss))
    _, taken = reported(evaluate_reference(held_out, sound.recipe.loss, "train"))
    for one, other in zip(taken, computed, strict=True):
        # A tie to the last bit, which another layout breaks.
        assert (one.pop("reward_margin"), one.pop("reward_accuracy")) == (0.0, 0.5)
        assert one == pytest.approx({name: other[name] for name in one}, abs=1e-4)


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    sound = learner(tiny_model)
    broken = Learner(sound.scorer, sound.recipe)
    with pytest.raises(RunnerError, match="the loss is nan after 7 steps"):
        reported(trained(broken, examples(), Listed(), tmp_path, Broken))
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-00000005"]


def test_no_checkpoint_is_written_of_a_loss_that_is_no_number(tiny_model: Path, tmp_path: Path) -> None:
    sound = learner(tiny_model, checkpoints=3)
    broken = Learner(sound.scorer, replace(sound.recipe, checkpoint_every=2))
    with pytest.raises(RunnerError, match="the loss is nan after 7 steps"):
        reported(trained(broken, examples(), Listed(), tmp_path, Broken))
    assert [path.name for path in checkpoint.steps(tmp_path)] == ["step-00000002", "step-00000004", "step-00000006"]


@pytest.mark.parametrize("keep_best", [True, False])
def test_training_stops_when_held_out_rows_have_said_so_and_keeps_what_is_asked(
    keep_best: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter((9.0, 3.0, 2.0, 5.0, 6.0, 1.0))

    def given(*_: Any) -> Generator[Event, None, list[dict[str, float]]]:
        yield from ()
        return [{"loss": next(losses), "weight": 1.0}]

    for name in ("evaluate", "evaluate_reference"):
        monkeypatch.setattr(evaluation, name, given)
    sound = learner(tiny_model, keep_best=keep_best, patience=2)
    evaluated = Learner(sound.scorer, replace(sound.recipe, evaluate_every=2))
    events, step = reported(trained(evaluated, examples(), examples(), tmp_path))
    # Evaluated after 0, 2, 4, 6 and 8 steps; the lowest after 4.
    assert [event.step for event in events if isinstance(event, Metrics) and "eval/loss" in event.values][-1] == 8
    (note,) = (event for event in events if isinstance(event, Note))
    assert "stopped after 8 steps: eval/loss has not improved in 2 evaluations" in note.text
    assert step == (4 if keep_best else 8)
    name = "best.safetensors" if keep_best else "step-00000008/weights.safetensors"
    assert result_weights(tmp_path, keep_best) == tmp_path / name


def test_an_average_of_the_weights_is_judged_and_kept(tiny_model: Path, tmp_path: Path) -> None:
    averaging = learner(tiny_model, ema_decay=0.5)
    expected = {name: weight.detach().clone() for name, weight in averaging.weights.items()}
    for step in range(3):
        backward(averaging, examples()[:2])
        averaging.descend(averaging.recipe.adam(step))
        for name, weight in averaging.weights.items():
            expected[name] = 0.5 * expected[name] + 0.5 * weight.detach()
    for name, value in averaging.result.items():
        torch.testing.assert_close(value, expected[name])
    before, after = bits(averaging.weights), bits(averaging.averaged)
    with averaging.result_in_place():
        assert bits(averaging.weights) == after
    assert (bits(averaging.weights), bits(averaging.averaged)) == (before, after)
    reported(trained(learner(tiny_model, ema_decay=0.5), examples(), Listed(), tmp_path))
    assert result_weights(tmp_path, False).name == "averaged.safetensors"


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {}, "average": {"ema_decay": 0.9}, "best": {"keep_best": True}, "patience": {"patience": 1},
    "packs": {"tokens_at_once": 20}, "lanes": {"lanes": 2, "tokens_at_once": 60},
    "full": {"settings": Local(tuning="full"), "weight_decay": 0.1},
    "dropout": {"settings": Local(lora=Lora(dropout=0.1))}, "dora": {"settings": Local(lora=Lora(dora=True))},
    "rslora": {"settings": Local(lora=Lora(rslora=True))}, "noise": {"settings": Local(neftune_alpha=5.0)},
    "again": {"settings": Local(runtime=Runtime(gradient_checkpointing=True), lora=Lora(dropout=0.1))},
}  # fmt: skip


OF_ONE_KIND = ("rslora", "dora", "again")
"""Options that change what a step computes and keep nothing next to the weights: `full` stands for them."""


@pytest.mark.parametrize(
    "option",
    [pytest.param(each, marks=pytest.mark.exhaustive if each in OF_ONE_KIND else ()) for each in OPTIONS],
)
def test_a_training_stopped_early_or_late_resumes_to_the_same_bits(
    option: str, tiny_model: Path, tmp_path: Path
) -> None:
    more = OPTIONS[option]
    whole = learner(tiny_model, **more)
    events, ended = reported(trained(whole, examples()[:6], examples()[6:], tmp_path / "whole"))
    measured = set(map(str, rounded(events)))
    for stopped_at in (1, 8):
        folder = tmp_path / f"stopped after {stopped_at} steps"
        stopped = trained(learner(tiny_model, **more), examples()[:6], examples()[6:], folder)
        seen = []
        for event in stopped:
            seen.append(event)
            if isinstance(event, Metrics) and event.step == stopped_at and "train/loss" in event.values:
                with pytest.raises(StopAsked):  # once what was measured up to its checkpoint is reported
                    seen += [stopped.throw(StopAsked()), *stopped]
                break
        again = learner(tiny_model, **more)
        rest, step = reported(trained(again, examples()[:6], examples()[6:], folder))
        assert step == ended
        assert bits(again.result) == bits(whole.result), folder
        assert all(str(each) in measured for each in rounded(seen + rest)), folder
        kept = more.get("keep_best", False)
        one, other = (result_weights(each, kept).read_bytes() for each in (tmp_path / "whole", folder))
        assert one == other, folder
