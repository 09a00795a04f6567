"""The base model of a hosted run, asked before the start by a deployment of it that exists."""

from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from runner import backends
from runner.errors import ModelError
from runner.evaluation.rehearsal import base_model
from runner.execution import execute
from tests.emulator import Emulator
from tests.hosted.rehearsal import planned

pytestmark = pytest.mark.slow

GRADED = "evaluation.graders=[{type: length, name: short, max: 4, unit: words}]"


def test_a_deployment_of_the_base_model_is_found_and_answers_the_rehearsal(cloud: Emulator, tmp_path: Path) -> None:
    run = planned(tmp_path, tmp_path / "runs", GRADED)
    untold = base_model.plan(run)
    assert isinstance(untold, str)
    assert "no deployment of it exists; deploy it, or set backend.deployment.base." in untold
    cloud.add_deployment("there", run.plan.model.source.partition(":")[2])
    found = base_model.plan(run)
    assert not isinstance(found, str)
    [scores] = execute.to_its_end(base_model.carry_out(found), lambda event: None)
    assert scores.prompts == len(found.rows) > 0
    before = len(cloud.requests)
    assert execute.to_its_end(base_model.carry_out(found), lambda event: None) == [scores]
    assert len(cloud.requests) == before


def test_a_deployment_that_is_named_is_asked_without_a_search(cloud: Emulator, tmp_path: Path) -> None:
    settings = planned(tmp_path, tmp_path / "runs", "backend.deployment.base=mine").request.backend
    found = backends.load("foundry").respondent("hosted:gpt-4.1", settings)
    assert found is not None
    assert found.identity.endswith(" mine")
    assert cloud.requests == []
    unset = planned(tmp_path, tmp_path / "runs", "backend.deployment.base=null").request.backend
    with pytest.raises(ModelError, match=r"hosted:gpt-4\.1: no deployment of it exists"):
        backends.load("foundry").respondent("hosted:gpt-4.1", unset)
