"""Trials in other processes, through Hydra's launchers: the same numbers, whoever starts them and whatever dies."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runner.record.journal import read, read_state
from tests import waiting
from tests.sweeps.conftest import Here

pytestmark = pytest.mark.slow

RATES = ("dpo.learning_rate_multiplier=0.5,1", "tracking=none", "name=grid")
IN_PROCESSES = ("hydra/launcher=processes", "hydra.launcher.n_jobs=2")
"""Each of its processes imports torch afresh, 10 s of processor time; hence few trials here, and few launches."""
THREE = ("dpo.learning_rate_multiplier=0.5,1,2", "tracking=none", "name=grid")


def numbers(folder: Path) -> dict[str, Any]:
    """Return every value that was measured in each run: not when, and not how fast."""
    return {
        journal.parent.name: [
            (record.event.step, {key: value for key, value in record.event.values.items() if key[:7] != "system/"})
            for record in read(journal)
            if type(record.event).__name__ == "Metrics"  # type: ignore[union-attr]
        ]
        for journal in sorted(folder.glob("runs/grid-*/journal.jsonl"))
    }


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, shared_pairs: Path) -> dict[str, Any]:
    here = Here(tmp_path_factory.mktemp("one"), tiny_model, shared_pairs)
    done = here.run(*RATES)
    assert done.returncode == 0, done.stderr
    found = numbers(here.folder)
    assert len(found) == 2
    return found


@pytest.fixture(scope="module")
def shared_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import json

    from tests.conftest import pair_row

    path = tmp_path_factory.mktemp("rows") / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair_row(number)) + "\n" for number in range(16)), "utf-8")
    return path


@pytest.fixture
def there(tmp_path: Path, tiny_model: Path, shared_pairs: Path) -> Here:
    return Here(tmp_path, tiny_model, shared_pairs)


@pytest.mark.exhaustive  # launchers that pickle a trial for another interpreter; `processes`, just below, is one
@pytest.mark.parametrize(
    "more", [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]], ids=["joblib", "submitit"]
)
def test_trials_in_other_processes_measure_the_same_as_in_one(
    more: list[str], there: Here, in_one_process: dict[str, Any]
) -> None:
    done = there.run(*RATES, f"hydra/launcher={more[0]}", *more[1:])
    assert done.returncode == 0, done.stderr
    assert there.summary()["trials"] == 2
    assert numbers(there.folder) == in_one_process


def test_ctrl_c_ends_a_sweep_in_other_processes_and_the_same_command_continues(there: Here) -> None:
    line = ("seed=1,2", "dpo.n_epochs=20", "tracking=none", "name=grid", "evaluation.every=1000000",
            *IN_PROCESSES)  # fmt: skip
    process = there.start(*line, start_new_session=True)
    journals = partial(there.folder.glob, "runs/*/journal.jsonl")
    waiting.until(
        lambda: b'"Metrics"' in b"".join(path.read_bytes() for path in journals()), "metrics", process=process
    )
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "continue the sweep" in errors
    assert "Traceback" not in errors
    assert len(there.summary()["failed"]) == 2
    done = there.run(*line, "hydra.launcher.n_jobs=1")  # no part of a plan; 20 s less than two processes
    assert done.returncode == 0, done.stderr
    assert there.summary()["failed"] == []


def test_a_failing_trial_in_another_process_stops_no_other_and_all_measure_the_same_as_in_one(
    there: Here, in_one_process: dict[str, Any]
) -> None:
    """Its folder is a file, so it cannot begin."""
    planned = there.run(*RATES, "mode=plan").stdout
    name = next(line.split()[-1] for line in planned.splitlines() if "multiplier=1 " in line)
    (there.folder / "runs").mkdir()
    (there.folder / "runs" / name).write_text("in the way")
    failed = there.run(*RATES, *IN_PROCESSES)
    assert failed.returncode == 1
    assert "1 of 2 trials failed; give the same command again" in failed.stderr
    assert len(numbers(there.folder)) == 1
    (there.folder / "runs" / name).unlink()
    again = there.run(*RATES, "hydra/launcher=processes", "hydra.launcher.n_jobs=1")
    assert again.returncode == 0, again.stderr
    assert "2 trials, 1 finished before, 1 to do" in again.stdout
    assert numbers(there.folder) == in_one_process


class Cluster:
    """A Ray cluster of two node processes on this machine, one trial a node."""

    def __init__(self, environment: dict[str, str]) -> None:
        from ray.cluster_utils import Cluster as Nodes

        before = dict(os.environ)
        os.environ.update(environment)  # a node's workers see what the node sees
        try:
            self.nodes = Nodes(initialize_head=True, head_node_args=self._node())
            self.second = self.nodes.add_node(**self._node())
            self.nodes.wait_for_nodes()
        finally:
            os.environ.clear()
            os.environ.update(before)

    @staticmethod
    def _node() -> dict[str, Any]:
        return {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}

    @property
    def overrides(self) -> list[str]:
        return ["hydra/launcher=ray_cluster", f"hydra.launcher.ray.init.address='{self.nodes.address}'",
                "hydra.launcher.ray.remote.num_cpus=1"]  # fmt: skip


@pytest.fixture
def cluster(there: Here) -> Iterator[Cluster]:
    made = Cluster(there.environment())
    yield made
    made.nodes.shutdown()


@pytest.mark.exhaustive  # 80 s; a trial elsewhere, its death and what continues after it: `processes` and Ctrl-C above
def test_two_nodes_of_a_ray_cluster_come_to_the_same_though_one_dies_in_mid_trial(
    there: Here, cluster: Cluster
) -> None:
    long = ("dpo.n_epochs=30", "evaluation.every=100000")
    process = there.start(*THREE, *long, *cluster.overrides)

    def training() -> list[Path]:
        begun = there.folder.glob("runs/grid-*/journal.jsonl")
        return [path.parent for path in begun if b'"Metrics"' in path.read_bytes()]

    waiting.until(lambda: len(training()) >= 2, "two trials to train", process=process)
    assert len(training()) == 2, "two trials at a time"
    assert not any("save" in read_state(folder).results for folder in training())
    cluster.nodes.remove_node(cluster.second, allow_graceful=False)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert there.summary()["trials"] == 3
    assert len(numbers(there.folder)) == 3
    begun = [sum(type(each.event).__name__ == "Started" for each in read(path)) for path in
             there.folder.glob("runs/grid-*/journal.jsonl")]  # fmt: skip
    assert sorted(begun) == [1, 1, 2], "the trial of the node that died was taken up on the other"
    whole = Here(there.folder / "whole", there.model, there.rows)
    whole.folder.mkdir()
    assert whole.run(*THREE, *long).returncode == 0
    assert numbers(there.folder) == numbers(whole.folder)
