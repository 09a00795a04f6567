"""Whatever a file holds, the survey of it ends, and with nothing but its findings or one sentence."""

import subprocess
import sys

import pytest


def survey_damaged_files(*arguments: str, deadline_seconds: float) -> str:
    """Survey damaged files in a process of their own; return what it printed of those that went wrong."""
    command = [sys.executable, "-m", "tests.data.mutations", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=deadline_seconds)
    last = done.stderr.rpartition("\r")[2]
    return "" if done.returncode == 0 else f"left with {done.returncode}, the last file was {last}\n{done.stdout}"


def test_damaged_files_are_surveyed_or_refused_in_a_sentence() -> None:
    assert survey_damaged_files("--count", "1000", deadline_seconds=300) == ""


@pytest.mark.slow
@pytest.mark.exhaustive
def test_many_damaged_files_are_surveyed_or_refused_in_a_sentence() -> None:
    assert survey_damaged_files("--first", "1000", "--seconds", "300", deadline_seconds=600) == ""
