"""The one loop over a remote engine ends where it ends on this machine, for every loss."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("tinker")
pytest.importorskip("azure.core")

from runner.backends.local.training.recipe import LocalRecipe
from runner.methods.dpo.losses import LOSSES
from runner.remote.engine import opening
from runner.training.loop import train
from tests.remote import driven
from tests.training.driving import Listed, reported, rounded
from tests.training.test_by_primitives import DPO_KEYS, RECIPE, RECIPES, ROWS, adapted, examples, in_process, learned

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=driven.WIRES)
def service(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[driven.Rehearsal]:
    with driven.WIRES[request.param].emulator({driven.BASE: tiny_model}) as found:
        yield driven.Rehearsal(request.param, found)
        assert found.violations == []
        assert found.live == []


NAMES = ["sft", "sigmoid and RPO term", *LOSSES]


def named(usual: Sequence[str]) -> Any:
    """Return every loss as a case, all but some of which `make test` leaves out."""
    return pytest.mark.parametrize(
        "name", [name if name in usual else pytest.param(name, marks=pytest.mark.exhaustive) for name in NAMES]
    )


def recipe_of(name: str, kind: driven.Wire) -> LocalRecipe:
    """Return six steps by a loss, without what a service does not have."""
    recipe = replace(RECIPES.get(name, RECIPE), num_steps=6)
    if name in LOSSES:
        smoothing = 0.1 if "label_smoothing" in LOSSES[name].needs else 0.0
        keys = replace(DPO_KEYS, loss_type=name, gamma=0.5, label_smoothing=smoothing)
        recipe = replace(recipe, hyperparameters=keys)
    fitting: LocalRecipe = kind.fitting(recipe)
    return fitting


def demand_same_weights(service: driven.Rehearsal, model: Any, within: float) -> None:
    """Require the weights at the service to be those of a model here."""
    weights = driven.final(service.emulator, 6)
    assert weights.steps == 6
    ours = dict(model.get_base_model().named_parameters())
    for key, tensor in weights.state.weights.items():
        assert tensor.dtype == ours[key].dtype
        torch.testing.assert_close(tensor, ours[key].detach(), rtol=0, atol=within)


# Sums of answers, squares of them, odds: the others differ in the loss alone, which is not the engine's.
@named(["sft", "sigmoid and RPO term", "ipo", "orpo"])
def test_six_steps_at_a_service_end_in_the_weights_and_the_metrics_of_this_machine(
    name: str, service: driven.Rehearsal, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(name, service.kind)
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
    demand_same_weights(service, model, within=1e-5)
    opening.close(found, "success")
    found.service.disconnect()


@pytest.fixture(scope="module")
def doubles(tiny_model: Path) -> Iterator[driven.Rehearsal]:
    # Only JSON has doubles: Tinker's wire is float32.
    with driven.WIRES["sessions"].emulator({driven.BASE: tiny_model}) as found:
        found.dtype = "float64"
        yield driven.Rehearsal("sessions", found)
        assert found.violations == []
        assert found.live == []


# AdamW divides a gradient by its size, so that roundings of float32 are what is left in the test above.
@named(["sft", "sigmoid and RPO term"])
def test_in_doubles_six_steps_at_a_service_end_in_the_weights_of_this_machine_to_ten_digits(
    name: str, doubles: driven.Rehearsal, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(name, doubles.kind)
    rows, model = examples(recipe, ROWS[:6]), adapted(tiny_model, torch.float64)
    before = learned(model)
    reported(train(in_process(model, recipe, tmp_path), recipe, rows, Listed()))
    found = doubles.driver(tmp_path / "remote")
    driven.trained(doubles.wire, found, recipe, rows, Listed())
    assert (learned(model) - before).abs().max() > 1e-3
    demand_same_weights(doubles, model, within=1e-10)
    opening.close(found, "success")
    found.service.disconnect()
