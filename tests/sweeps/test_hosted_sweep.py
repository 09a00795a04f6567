"""Many hosted jobs of one command: what they share is sent once, and what they cost is agreed to first."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from tests.hosted_cli import LINE, Hosted, hosted

pytestmark = pytest.mark.slow

SWEEP = ("-m", *LINE, "name=run", "seed=1,2,3")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path) as here:
        yield here


def test_a_sweep_that_costs_more_than_allowed_sends_nothing(here: Hosted) -> None:
    planned = here.command("runner", *SWEEP, "mode=plan")
    assert planned.returncode == 0, planned.stderr
    assert "takes: time not known, about $0.02" in planned.stdout
    assert planned.stdout.count("limits: 3 jobs run at a time and 20 wait at the service") == 1, "once, not per trial"
    assert (
        planned.stdout.count("warning: gpt-4.1-mini is retired; in its place, for dpo: backend=foundry_sessions") == 1
    )
    refused = here.command("runner", *SWEEP, "max_price=0.001")
    assert refused.returncode == 2
    assert "max_price: got 0.001, but this takes about $0.02; nothing was sent." in refused.stderr
    assert not here.cloud.jobs
    assert not here.cloud.files


def test_trials_share_what_is_sent_and_are_followed_together(here: Hosted) -> None:
    done = here.command("runner", *SWEEP, "max_price=10", "hydra/launcher=processes", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    assert len(here.cloud.jobs) == 3
    assert "money spent, by the table of prices: about $0.02" in done.stdout
    sent = [each for each in here.cloud.files.values() if each.kind is not None]  # the others are results
    assert len(sent) == 2, "training rows and held-out rows, for all of them"
    again = here.command("runner", *SWEEP, "max_price=0")
    assert again.returncode == 0, again.stderr
    assert "3 finished before, 0 to do" in again.stdout
    assert len(here.cloud.jobs) == 3


def test_a_run_alone_is_asked_about_too(here: Hosted) -> None:
    refused = here.command("runner", *LINE, "max_price=0")
    assert refused.returncode == 2
    assert "max_price: got 0, but this takes about $0.01; nothing was sent." in refused.stderr
    assert not here.cloud.jobs
