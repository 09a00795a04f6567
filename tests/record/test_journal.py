"""The journal survives torn writes, notes nothing twice, and knows which steps are done."""

from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.record.events import Metrics, Note, Progress, StepDone
from runner.record.journal import Journal, read


def test_what_was_noted_is_read_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(Note("one"))
    journal.add(Metrics(3, {"train/loss": 0.5}))
    assert [record.event for record in read(tmp_path / "journal.jsonl")] == [
        Note("one"),
        Metrics(3, {"train/loss": 0.5}),
    ]


def test_a_line_torn_by_a_crash_is_cut_off_and_writing_continues_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.add(Note("whole"))
    with path.open("ab") as file:
        file.write(b'{"time": 1.0, "event": {"type": "No')
    journal = Journal(path)
    journal.add(Note("after"))
    assert [record.event for record in read(path)] == [Note("whole"), Note("after")]


def test_metrics_that_a_resumed_run_measures_again_are_not_noted_twice(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    first.add(Metrics(1, {"train/loss": 0.7}))
    again = Journal(path)
    assert again.add(Metrics(1, {"train/loss": 0.7})) is None
    assert again.add(Metrics(1, {"eval/loss": 0.7})) is not None
    assert again.add(Metrics(2, {"train/loss": 0.6})) is not None
    assert len(read(path)) == 3


def test_a_step_is_done_only_under_the_key_it_was_done_for(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert not journal.state.has("sample", "10 answers")
    journal.add(StepDone("sample", "10 answers", 1.5, {"num_samples": 10}))
    assert journal.state.has("sample", "10 answers")
    assert not journal.state.has("sample", "20 answers")
    assert journal.state.results["sample"] == {"num_samples": 10}


def test_progress_is_for_the_eye_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.add(Progress("train", 1, 2)) is None
    assert read(tmp_path / "journal.jsonl") == []


def test_a_damaged_journal_is_reported_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"time": 1.0}\n')
    with pytest.raises(RunnerError, match=r"journal\.jsonl: is damaged .*; move the run's folder away"):
        read(tmp_path / "journal.jsonl")
