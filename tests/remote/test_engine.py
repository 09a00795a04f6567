"""The one loop over a remote engine ends where it ends on this machine, for every loss."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("tinker")
pytest.importorskip("azure.core")

from runner.methods.dpo.losses import LOSSES
from runner.remote.engine import opening
from runner.training.loop import train
from tests.remote import driven
from tests.training.driving import reported, rounded
from tests.training.test_by_primitives import DPO_KEYS, RECIPE, RECIPES, ROWS, adapted, examples, in_process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=driven.WIRES)
def service(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[driven.Rehearsal]:
    with driven.WIRES[request.param].emulator({driven.BASE: tiny_model}) as found:
        yield driven.Rehearsal(request.param, found)
        assert found.violations == []
        assert found.live == []


@pytest.mark.parametrize(
    "name",
    [
        "sft",
        "sigmoid and RPO term",
        # Sums of answers, squares of them, odds: the others differ in the loss alone, which is not the engine's.
        *(name if name in ("ipo", "orpo") else pytest.param(name, marks=pytest.mark.exhaustive) for name in LOSSES),
    ],
)
def test_six_steps_at_a_service_end_in_the_weights_and_the_metrics_of_this_machine(
    name: str, service: driven.Rehearsal, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = replace(RECIPES.get(name, RECIPE), num_steps=6)
    if name in LOSSES:
        smoothing = 0.1 if "label_smoothing" in LOSSES[name].needs else 0.0
        keys = replace(DPO_KEYS, loss_type=name, gamma=0.5, label_smoothing=smoothing)
        recipe = replace(recipe, hyperparameters=keys)
    recipe = service.kind.fitting(recipe)
    rows, held_out = examples(recipe, ROWS[:6]), examples(recipe, ROWS[6:])
    model = adapted(tiny_model)
    local, step = reported(train(in_process(model, recipe, tmp_path), recipe, rows, held_out))
    found = service.driver(tmp_path / "remote")
    remote, same_step = driven.trained(service.wire, found, recipe, rows, held_out)
    assert step == same_step
    for (at, values), (same_at, others) in zip(rounded(local), rounded(remote), strict=True):
        assert at == same_at
        known = {key: value for key, value in values.items() if not key.endswith("token_accuracy")}
        assert {key: value for key, value in others.items() if value == value} == pytest.approx(
            known, rel=1e-4, abs=1e-5
        )
    weights = driven.final(service.emulator, 6)
    assert weights.steps == 6
    for key, tensor in weights.state.weights.items():
        ours = dict(model.get_base_model().named_parameters())[key].detach()
        torch.testing.assert_close(tensor, ours, rtol=0, atol=1e-5)
    opening.close(found, "success")
    found.service.disconnect()
