"""What a hosted run hears more than once is noted once; what it made is known until it is gone."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.record.events import (
    Created,
    Event,
    Failed,
    Intent,
    Metrics,
    Note,
    Progress,
    Removed,
    Said,
    Started,
    State,
    StepDone,
    StepStarted,
    Wait,
)
from runner.record.journal import Journal, RunState, read
from tests.data.samples import unhurried


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def noted(path: Path, *events: Event) -> list[Event]:
    """Note events in a journal of its own process and return all that it holds then."""
    journal = Journal(path)
    for event in events:
        journal.add(event)
    return [record.event for record in read(path)]


def after(*events: Event) -> RunState:
    """Return how far a run is after some events."""
    state = RunState([])
    for event in events:
        state.apply(event)
    return state


def test_metrics_heard_again_are_noted_once_whichever_way_they_come(path: Path) -> None:
    reported = Metrics(1, {"train/loss": 0.7, "hosted/train_loss": 0.7}, 100.0)
    assert noted(path, reported, reported) == [reported]
    from_the_results_file = Metrics(1, {"train/loss": 0.7, "hosted/train_loss": 0.7}, 900.0)
    assert noted(path, from_the_results_file) == [reported]


def test_of_metrics_known_in_part_only_the_fresh_names_are_noted(path: Path) -> None:
    journal = Journal(path)
    journal.add(Metrics(1, {"train/loss": 0.7}, 100.0))
    record = journal.add(Metrics(1, {"train/loss": 0.7, "eval/loss": 0.8}, 101.0))
    assert record is not None
    assert record.event == Metrics(1, {"eval/loss": 0.8}, 101.0)
    assert journal.add(Metrics(1, {"eval/loss": 0.8}, 102.0)) is None
    assert len(read(path)) == 2


def test_the_same_name_at_another_step_is_another_metric(path: Path) -> None:
    one, two = Metrics(1, {"train/loss": 0.7}), Metrics(2, {"train/loss": 0.7})
    assert noted(path, one, two) == [one, two]


def test_what_was_heard_first_is_kept(path: Path) -> None:
    assert noted(path, Metrics(1, {"train/loss": 0.7}), Metrics(1, {"train/loss": 0.9})) == [
        Metrics(1, {"train/loss": 0.7})
    ]


def test_what_a_service_says_is_known_by_its_id(path: Path) -> None:
    first, same_words = Said("ftevent-1", "Job started", 100.0), Said("ftevent-2", "Job started", 100.0)
    assert noted(path, first, same_words) == [first, same_words]
    assert noted(path, Said("ftevent-1", "Job started.", 101.0)) == [first, same_words]


def test_a_state_is_noted_when_it_changes(path: Path) -> None:
    queued, running = State("job", "queued"), State("job", "running")
    assert noted(path, queued, queued, running, queued) == [queued, running, queued]
    assert noted(path, queued, State("deployment", "queued"))[3:] == [State("deployment", "queued")]


@pytest.mark.parametrize("event", [Metrics(3, {"a": 1.0}, 1234.5), Said("e", "x", 1234.5)])
def test_a_record_carries_the_time_at_which_it_happened_elsewhere(event: Event, path: Path) -> None:
    record = Journal(path).add(event)
    assert record is not None
    assert record.time == 1234.5
    assert read(path) == [record]


@pytest.mark.parametrize("event", [Metrics(3, {"a": 1.0}), State("job", "queued"), Note("x")])
def test_a_record_of_what_happens_here_carries_our_time(event: Event, path: Path) -> None:
    before = time.time()
    record = Journal(path).add(event)
    assert record is not None
    assert before <= record.time <= time.time()


def test_waits_and_progress_are_not_kept(path: Path) -> None:
    assert noted(path, Wait(3.0), Progress("follow", 1, 0, {}, "queued")) == []


FILE, DEPLOYMENT = Created("file", "file-1", {"bytes": 3}), Created("deployment", "r-1", {"sku": "GlobalStandard"})


def test_what_was_created_is_listed_until_it_is_removed(path: Path) -> None:
    assert noted(path, FILE, FILE, DEPLOYMENT) == [FILE, DEPLOYMENT]
    state = RunState(read(path))
    assert state.created == {("file", "file-1"): FILE, ("deployment", "r-1"): DEPLOYMENT}
    noted(path, Removed("deployment", "r-1"))
    assert list(RunState(read(path)).created) == [("file", "file-1")]


def test_what_was_removed_can_be_created_again(path: Path) -> None:
    gone = Removed("deployment", "r-1")
    assert noted(path, DEPLOYMENT, gone, DEPLOYMENT) == [DEPLOYMENT, gone, DEPLOYMENT]
    assert ("deployment", "r-1") in RunState(read(path)).created


def test_removing_what_this_run_did_not_make_changes_nothing() -> None:
    assert after(FILE, Removed("file", "file-2"), Removed("deployment", "file-1")).created == {("file", "file-1"): FILE}


def test_a_removal_undoes_the_step_that_made_it_and_keeps_its_result() -> None:
    done = StepDone("deploy", "keep", 1.0, {"deployment": "r-1"})
    state = after(done, StepDone("sample", "2", 1.0, {}), DEPLOYMENT, Removed("deployment", "r-1", "deploy"))
    assert not state.has("deploy", "keep")
    assert state.has("sample", "2")
    assert state.results["deploy"] == {"deployment": "r-1"}
    state.apply(done)
    assert state.has("deploy", "keep")


def test_a_removal_that_undoes_nothing_leaves_every_step_done() -> None:
    assert after(StepDone("upload", "", 1.0, {}), FILE, Removed("file", "file-1")).has("upload", "")


def test_an_intent_is_known_by_what_it_is_about_and_the_last_one_counts() -> None:
    state = after(Intent("job", {"there": []}), Intent("file a", {}), Intent("job", {"there": ["ftjob-1"]}))
    assert state.intents == {"job": {"there": ["ftjob-1"]}, "file a": {}}


def test_a_failure_for_good_outlives_a_later_start_but_not_a_step_that_is_done() -> None:
    failed = after(StepDone("create", "", 1.0, {}), Failed("the job was cancelled", for_good=True))
    assert failed.failed_for_good
    for event in (Started("here", {}), StepStarted("follow"), State("job", "cancelled"), Failed("no connection")):
        failed.apply(event)
        assert failed.failed_for_good
    failed.apply(StepDone("follow", "", 1.0, {}))
    assert not failed.failed_for_good


def test_a_failure_that_passes_is_not_for_good() -> None:
    assert not after(Failed("no connection")).failed_for_good


NAMES = st.sampled_from(["train/loss", "eval/loss", "hosted/train_loss"])
HEARD = st.one_of(
    st.builds(Metrics, st.integers(0, 3), st.dictionaries(NAMES, st.floats(0, 1), min_size=1), st.floats(1, 9)),
    st.builds(Said, st.sampled_from("abc"), st.just("x"), st.floats(1, 9)),
    st.builds(State, st.just("job"), st.sampled_from(["queued", "running"])),
    st.builds(Created, st.just("file"), st.sampled_from("xy"), st.just({})),
)


@unhurried
@given(st.lists(HEARD, max_size=12), st.data())
def test_events_heard_in_many_processes_are_noted_as_in_one(
    tmp_path_factory: pytest.TempPathFactory, events: Sequence[Event], data: st.DataObject
) -> None:
    """Cut the events anywhere, hear what came before the cut once more, in their order: nothing is noted twice."""
    folder = tmp_path_factory.mktemp("journals")
    kept = [event for event in events if not isinstance(event, State)]
    cut = data.draw(st.integers(0, len(kept)))
    whole = noted(folder / "one.jsonl", *kept)
    noted(folder / "many.jsonl", *kept[:cut])
    assert noted(folder / "many.jsonl", *kept) == whole
    measured = [(e.step, name) for e in whole if isinstance(e, Metrics) for name in e.values]
    assert len(measured) == len(set(measured))
