"""Sessions end: with the run, on Ctrl-C, and by a later command; a credential that is missing is a sentence."""

import re
import signal
from typing import Any

import pytest

from tests.backends.rehearsed import World, demand_stop_before_max_price, ended

pytestmark = pytest.mark.slow


def test_a_killed_run_leaves_a_session_that_is_listed_taken_up_and_removed(world: World) -> None:
    service: Any = world.service
    service.delay = 0.03
    process = world.begun("one")
    process.kill()
    ended(process)
    (session,) = service.live
    service.delay = 0.0
    said = world.command("runner.jobs")
    assert re.search(rf"{session} +running .*{world.of('one').name} +tiny/llama", said), said
    world.run("one")
    assert len(service.models) == 2  # its own, and one for the base model's answers
    assert service.count("optim_step") == 6
    assert service.live == []
    said = world.command("runner.clean", "--yes", world.of("one").name)
    assert f"removed: checkpoint loom://{session}/weights/step-00000002" in said
    assert not service.checkpoints


# By the same code as with Tinker, where `make test` has it.
@pytest.mark.exhaustive
def test_ctrl_c_saves_and_ends_the_session_and_the_same_command_continues(world: World) -> None:
    service: Any = world.service
    service.delay = 0.03
    process = world.begun("one")
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert code == 130, said
    assert service.live == []
    service.delay = 0.0
    world.run("one", "evaluation.samples=0")
    assert service.count("optim_step") == 6  # what was done before Ctrl-C was saved, and is not done again


@pytest.mark.exhaustive
def test_a_run_stops_at_a_checkpoint_before_max_price_and_continues_when_it_is_raised(world: World) -> None:
    demand_stop_before_max_price(world)


def test_an_endpoint_or_a_credential_that_is_missing_is_reported_in_one_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = world.line("backend=foundry_sessions", f"model.source={world.source}")
    environment = world.service.environment()
    for changed, sentence in (
        ({"AZURE_AI_PROJECT_ENDPOINT": ""}, "AZURE_AI_PROJECT_ENDPOINT: not set"),
        ({"IDENTITY_HEADER": "wrong"}, "backend.azure.credential: default gives no token"),
    ):
        monkeypatch.setattr(world.service, "environment", lambda changed=changed: environment | changed)
        said = world.command(*line, code=2)
        assert sentence in said, said
        assert "Traceback" not in said
    assert not world.service.sessions
