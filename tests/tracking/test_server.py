"""Trials that share an MLflow server on PostgreSQL: many write at once, the server dies, and nothing is lost."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.record.journal import read
from tests import waiting
from tests.sweeps.conftest import Here
from tests.tracking import graded_rows
from tests.tracking.server import Postgres, Server, programs
from tests.tracking.test_traces import ROWS, Page, whole

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed; Debian's package is called postgresql")
    # Not below pytest's own folder, which is for this user's eyes only.
    import tempfile

    with tempfile.TemporaryDirectory(prefix="runner-pg-") as folder:
        Path(folder).chmod(0o755)
        made = Postgres(Path(folder) / "postgres", found)
        yield made
        made.stop()


@pytest.fixture(scope="module")
def one_server(database: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"), database.uri)
    yield made
    made.kill()


@pytest.fixture
def server(one_server: Server) -> Server:
    """The server of all tests here, up; each test writes into an experiment of its own."""
    if not one_server.answers():
        one_server.start()
    return one_server


def kept(server: Server, experiment: str) -> dict[str, Any]:
    """Return status and metric history of each trial's run at the server, by its plan id."""
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id], "tags.`runner.plan_id` != ''")
    return {
        run.data.tags["runner.plan_id"]: (
            run.info.status,
            {(point.key, point.step, point.value) for key in run.data.metrics
             for point in client.get_metric_history(run.info.run_id, key) if not key.startswith("system/")},
        )
        for run in runs
    }  # fmt: skip


def journalled(folder: Path) -> dict[str, Any]:
    """Return what must be there: what the trials' journals hold."""
    from runner import planning

    found = {}
    for journal in folder.glob("runs/*/journal.jsonl"):
        events = [record.event for record in read(journal) if type(record.event).__name__ == "Metrics"]
        points = {(key, event.step, value) for event in events for key, value in event.values.items()  # type: ignore[union-attr]
                  if not key.startswith("system/")}  # fmt: skip
        found[planning.load(journal.parent).plan.id] = ("FINISHED", points)
    return found


def test_four_writers_at_once_lose_nothing(here: Here, server: Server) -> None:
    more = (f"tracking.uri={server.uri}", "tracking.experiment=four")
    writers = [here.start(f"seed={number}", *more, sweep=False) for number in range(4)]
    for each in writers:
        output, errors = each.communicate(timeout=waiting.SECONDS)
        assert each.returncode == 0, output + errors
    expected = journalled(here.folder)
    assert len(expected) == 4
    assert kept(server, "four") == expected


@pytest.mark.exhaustive  # processes that write into one experiment: the four above
def test_trials_in_other_processes_write_into_one_experiment(here: Here, server: Server) -> None:
    done = here.run("seed=range(2)", "hydra/launcher=processes", "hydra.launcher.n_jobs=2",
                    f"tracking.uri={server.uri}", "tracking.experiment=processes")  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = journalled(here.folder)
    assert len(expected) == 2
    assert kept(server, "processes") == expected


def test_a_server_that_dies_in_mid_sweep_costs_no_trial_and_no_number(here: Here, server: Server) -> None:
    process = here.start("seed=range(3)", "dpo.n_epochs=5", f"tracking.uri={server.uri}", "tracking.experiment=dies")

    def journals() -> list[Path]:
        return list(here.folder.glob("runs/*/journal.jsonl"))

    waiting.until(lambda: len(journals()) >= 2, "two trials to begin", process=process)
    server.kill()
    waiting.until(lambda: len(journals()) == 3, "three trials to begin", process=process)
    # Held while the server starts, as a quick sweep would be over before it answers; that is the next test.
    process.send_signal(signal.SIGSTOP)
    server.start()
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=waiting.SECONDS)
    assert process.returncode == 0, output + errors
    expected = journalled(here.folder)
    assert len(expected) == 3
    assert kept(server, "dies") == expected


def test_what_a_dead_server_missed_is_sent_by_the_same_command(here: Here, server: Server) -> None:
    server.kill()
    line = ("seed=range(2)", f"tracking.uri={server.uri}", "tracking.experiment=missed")
    alone = here.run(*line)
    assert alone.returncode == 0, alone.stderr
    assert "note: MLflow could not be reached" in alone.stdout
    server.start()
    again = here.run(*line)
    assert again.returncode == 0, again.stderr
    assert "2 trials, 2 finished before, 0 to do" in again.stdout
    assert kept(server, "missed") == journalled(here.folder)


def test_graded_rows_are_in_postgresql_as_they_are_in_sqlite(server: Server, tmp_path: Path) -> None:
    graded_rows.put(tmp_path, ROWS)
    page = Page(server.uri, tmp_path, "rows")
    page.write()
    page.write()
    whole(page)
