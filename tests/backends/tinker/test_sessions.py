"""Sessions end: with the run, on Ctrl-C, on failure, and by a later command; and a run stops before its `max_price`."""

import re
import signal
from typing import TYPE_CHECKING

import pytest

from runner.record.events import Note
from runner.record.journal import read
from tests import waiting
from tests.backends.rehearsed import World, demand_stop_before_max_price, ended, steps_behind
from tests.emulator.faults import Fault

if TYPE_CHECKING:
    from runner.backends.tinker.service import Tinker

pytestmark = pytest.mark.slow


def tinker(world: World) -> "Tinker":
    """Return the service as a driver asks it."""
    from runner.backends.tinker.service import Tinker
    from tests.emulator.tinker.emulator import KEY

    return Tinker(world.service.url, KEY, patience=5)


def test_ctrl_c_saves_and_ends_the_session_and_the_same_command_continues(world: World) -> None:
    world.service.delay = 0.03
    process = world.begun("one")
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert code == 130, said
    assert world.service.live == []
    world.service.delay = 0.0
    run = world.run("one")
    assert "resumed after" in "".join(
        each.event.text for each in read(run / "journal.jsonl") if isinstance(each.event, Note)
    )
    assert steps_behind(world) == 6
    trained = sum(count for (_, what), count in world.service.done.items() if what == "optim_step")
    assert trained == 6  # what was done before Ctrl-C was saved, and is not done again


def test_a_killed_run_leaves_a_session_that_is_listed_and_taken_up_or_ended(world: World) -> None:
    world.service.delay = 0.03
    process = world.begun("one")
    process.kill()
    ended(process)
    (session,) = world.service.live
    world.service.delay = 0.0
    said = world.command("runner.jobs")
    assert re.search(rf"{session} +active .*{world.of('one').name}", said), said
    asked = tinker(world)
    other = asked.open_for_answers({})
    asked.disconnect()
    assert f"{other}: ended" in world.command("runner.jobs", "cancel", other)
    assert world.service.live == [session]
    world.run("one")
    assert len(world.service.models) == 1
    trained = sum(count for (_, what), count in world.service.done.items() if what == "optim_step")
    assert trained == 6
    assert world.service.live == []


def test_sessions_that_were_left_behind_are_ended_by_clean_with_all_that_they_made(world: World) -> None:
    # Held back on its way, and taken for lost: the service opens one for each of two requests.
    world.service.inject(Fault("POST create_session", "late", before="POST create_model"))
    world.service.delay = 0.03
    process = world.begun("one")
    process.kill()
    ended(process)
    assert len(world.service.live) == 2
    listed, left = world.command("runner.jobs"), world.service.live
    assert all(re.search(rf"{session} +active .*{world.of('one').name}", listed) for session in left), listed
    said = world.command("runner.clean", "--yes", world.of("one").name)
    assert all(f"removed: session {session}" in said for session in left), said
    assert world.service.live == []
    assert not world.service.checkpoints


@pytest.mark.exhaustive
def test_a_failure_ends_the_session_and_leaves_what_is_saved(world: World) -> None:
    world.service.inject(Fault("POST optim_step", "status", skip=4, status=400))
    said = world.command(*world.line("backend=tinker", "name=one", f"model.source={world.source}"), code=2)
    assert "POST /api/v1/optim_step: 400" in said
    assert "secret-token" not in said
    assert world.service.live == []
    world.run("one")
    assert steps_behind(world) == 6


def test_a_run_stops_at_a_checkpoint_before_max_price_and_continues_when_it_is_raised(world: World) -> None:
    demand_stop_before_max_price(world)


def test_heartbeats_are_sent_while_the_driver_lives(world: World) -> None:
    from runner.remote.engine.heartbeat import Heartbeat

    service = tinker(world)
    session = service.open_for_answers({})
    world.service.session_seconds = 0.5
    beating = Heartbeat(service, session, every=0.05)
    last = world.service.sessions[session].beat_at
    waiting.until(lambda: world.service.sessions[session].beat_at > last + 1.0, "heartbeats over a second")
    assert world.service.live == [session]
    beating.stop()
    service.close(session, "success")
    assert not service.alive(session)
    service.disconnect()


def test_a_key_that_is_missing_is_reported_before_anything_is_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = world.line("backend=tinker", f"model.source={world.source}")
    environment = world.service.environment
    monkeypatch.setattr(type(world.service), "environment", lambda self: {**environment(), "TINKER_API_KEY": ""})
    assert "TINKER_API_KEY: not set; make a key" in world.command(*line, code=2)
    assert world.service.requests == []
