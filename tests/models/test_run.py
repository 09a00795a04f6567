"""An earlier run as a model: found by the name it was given, whatever else lies beside it."""

from pathlib import Path

import pytest

from runner.models import run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a run that was begun anew twice."""
    for folder in ("one-aaaa1111", "one-aaaa1111.before-1", "one-aaaa1111.before-2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "journal.jsonl").touch()
    return tmp_path


@pytest.mark.parametrize("name", ["one-aaaa1111", "aaaa1111", "aaaa"])
def test_a_run_that_was_begun_anew_is_found_by_its_whole_name_and_its_plan(name: str, runs: Path) -> None:
    assert run.find(name, runs) == runs / "one-aaaa1111"


@pytest.mark.parametrize("name", ["one", "one-aaaa"])
def test_so_it_is_by_the_start_of_its_name(name: str, runs: Path) -> None:
    assert run.find(name, runs) == runs / "one-aaaa1111"


def test_a_run_that_was_set_aside_is_found_by_its_own_name(runs: Path) -> None:
    assert run.find("one-aaaa1111.before-1", runs) == runs / "one-aaaa1111.before-1"
