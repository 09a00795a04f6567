"""A sweep of more trials than the service takes jobs: each waits for its turn, and a kill loses and repeats none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from runner.record.events import State
from tests.emulator import Limits, Script
from tests.hosted_cli import ALONE, LINE, Hosted, hosted, read_state, records

pytestmark = pytest.mark.slow

SWEEP = ("-m", *LINE, "name=run", "seed=1,2,3,4", "evaluation.samples=0", ALONE, "backend.polling.every=0.05")
WAITS = "waiting for its turn"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path, Script(validating_seconds=0.01, queued_seconds=0.01, running_seconds=3600)) as here:
        here.cloud.limits = Limits(running=1, queued=1)
        yield here


def states(here: Hosted) -> list[str]:
    """Return the state that each run's job is in, by the runs' journals."""
    return sorted(read_state(path).states.get("job", "") for path in here.folder.glob("runs/run-*"))


def test_trials_wait_for_their_turn_and_a_killed_sweep_continues_waiting(here: Hosted) -> None:
    with here.started("runner", *SWEEP) as sweep:
        here.wait(lambda: WAITS in states(here), "the third trial to wait")
        sweep.kill()
        sweep.wait()
    assert len(here.cloud.created_jobs) == 2, "one runs, one is queued"
    with here.started("runner", *SWEEP) as sweep:
        for there in (2, 3):  # the service's clock: an hour, and a job is over
            here.wait(lambda there=there: _refusals(here) == there, "the next trial to be turned away")
            here.cloud.advance(3600)
            here.wait(lambda there=there: len(here.cloud.created_jobs) == there + 1, "that trial to have its turn")
        assert sweep.wait(60) == 0, sweep.communicate()
    assert len(here.cloud.created_jobs) == len({each.seed for each in here.cloud.created_jobs}) == 4
    waited = [
        folder for folder in here.folder.glob("runs/run-*")
        if any(each.event == State("job", WAITS) for each in records(folder))
    ]  # fmt: skip
    assert len(waited) == 2, "the third and the fourth"


def test_a_project_that_keeps_no_more_jobs_is_an_error_once_none_is_under_way(here: Hosted) -> None:
    here.run(ALONE)
    here.cloud.limits = Limits(jobs=1)
    here.cloud.advance(7200)
    refused = here.command("runner", *LINE, "name=two", "seed=7", "backend.polling.every=0.05")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "429 quotaExceeded: The maximum number of fine-tuning jobs (1) has been reached" in refused.stderr
    assert "python -m runner.jobs lists jobs" in refused.stderr


def test_a_project_that_keeps_no_more_files_is_an_error_at_once(here: Hosted) -> None:
    here.cloud.limits = Limits(files=1)
    refused = here.command("runner", *LINE)
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "The maximum number of files (1) has been reached; the service takes no more of these" in refused.stderr
    assert not here.cloud.created_jobs


def _refusals(here: Hosted) -> int:
    sent = [each for each in here.cloud.requests if (each.method, each.path[-5:]) == ("POST", "/jobs")]
    return sum(each.status == 429 for each in sent)
