"""Reinforcement fine-tuning as a method: what it learns from, what it is ranked by, and where it can be trained."""

from typing import Any

import pytest

from runner import methods
from runner.data import kinds
from runner.methods import rft
from runner.methods.rft import RFT

SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}}}


def test_it_learns_from_problems_and_is_ranked_by_the_reward_on_held_out_rows() -> None:
    method = methods.load("rft")
    assert kinds.load(method.kind).label == "prompts with reference fields for a grader"
    assert method.graded
    assert (method.headline, methods.metric("eval/reward").lower_is_better) == ("reward", False)
    assert methods.metric("eval/parse_errors").lower_is_better
    assert methods.metric("eval/reward_right") == methods.Metric("reward_right", "reward right")


def test_every_auto_of_our_own_loop_has_a_value_and_a_reason() -> None:
    keys, why = rft.METHOD.resolve(RFT(grader="x", compute_multiplier=1.5), 100)
    assert (keys.group_size, keys.batch_size, keys.n_epochs, keys.temperature, keys.beta) == (12, 8, 3, 1.0, 0.0)
    assert (keys.epsilon, keys.epsilon_high, keys.updates_per_rollout) == (0.2, 0.28, 1)
    assert why["group_size"] == "8 × rft.compute_multiplier"
    assert rft.METHOD.resolve(RFT(grader="x", loss_type="gspo"), 100)[0].epsilon_high == 4e-4
    assert rft.METHOD.resolve(RFT(grader="x", compute_multiplier=0.1), 5000)[0].group_size == 2


def test_a_key_that_the_loss_does_not_know_is_refused() -> None:
    [reported] = rft.METHOD.problems(RFT(grader="x", loss_type="cispo", epsilon=0.1))
    assert reported == (
        "rft.epsilon: got 0.1, but rft.loss_type=cispo does not use it; leave it out, or take a loss that has it: "
        "grpo, dr_grpo, dapo, gspo, rloo."
    )
    assert list(rft.METHOD.unused(RFT(grader="x", loss_type="cispo"))) == ["epsilon"]


@pytest.mark.parametrize(
    "form", [{}, {"type": "text"}, {"type": "json_schema"}, {"type": "json_schema", "name": "a", "schema": {}}]
)
def test_a_response_format_in_another_form_than_the_services_is_refused(form: dict[str, Any]) -> None:
    [reported] = rft.METHOD.problems(RFT(grader="x", response_format=form))
    assert reported.startswith(
        f"rft.response_format: got {form}; allowed: {{type: json_schema, json_schema: {{name: NAME,"
    )


@pytest.mark.parametrize("form", [None, SCHEMA])
def test_the_services_response_format_is_taken(form: dict[str, Any] | None) -> None:
    assert list(rft.METHOD.problems(RFT(grader="x", response_format=form))) == []


def test_the_grader_is_shown_by_its_name() -> None:
    grader = {"type": "python", "name": "near", "source": "def grade(sample, item):\n    return 1.0"}
    shown = rft.METHOD.shown({"n_epochs": 2, "grader": grader, "response_format": SCHEMA})
    assert shown == {"rft.n_epochs": 2, "rft.grader": "near (python)", "rft.response_format": "answer"}
