"""The live table: on a real terminal, from the journals of processes that are not ours."""

import os
import pty
import select
from pathlib import Path

import pytest

from tests import waiting, warm
from tests.sweeps.conftest import Here


def typed(here: Here, *more: str) -> str:
    """Run a sweep on a terminal of 160 columns; return all that it wrote there."""
    ours, theirs = pty.openpty()
    environment = here.environment() | {"TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
    process = warm.Popen(here.line(*more), cwd=here.folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        ready, _, _ = select.select([ours], [], [], waiting.SECONDS)
        assert ready, f"the terminal has been silent for {waiting.SECONDS} s after {written.decode()}"
        try:
            part = os.read(ours, 65536)
        except OSError:  # nobody has the other end open any more
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.wait(waiting.SECONDS) == 0, written.decode()
    return written.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param([], id="here"),
        # The table reads journals, whoever writes them: the first case, and the test below, show that.
        pytest.param(
            ["hydra/launcher=processes", "hydra.launcher.n_jobs=2"], id="processes", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_trials_are_shown_while_they_run(launcher: list[str], here: Here) -> None:
    written = typed(here, "seed=1,2,3", "dpo.n_epochs=8", "tracking=none", *launcher)
    assert "of 3 trials done" in written
    assert "held-out loss" in written
    assert written.rindex("of 3 trials done") < written.index("3 runs of one request"), "the table is gone at the end"


def test_a_row_of_the_live_table_shows_what_a_journal_holds(tmp_path: Path) -> None:
    from runner.record.events import Metrics, StepDone, StepStarted
    from runner.record.journal import Journal
    from runner.terminal.trials import _cells

    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(StepStarted("train"))
    journal.add(Metrics(0, {"eval/loss": 0.7, "eval/reward_accuracy": 0.5}))
    journal.add(Metrics(3, {"train/loss": 0.61}))
    assert _cells(tmp_path / "journal.jsonl") == ["train", "3", "0.61", "0.7", "0.5"]
    journal.add(StepDone("sample", "", 1.0, {}))
    assert _cells(tmp_path / "journal.jsonl")[0] == "finished"
