"""Trials in other processes, through Hydra's launchers: the same numbers, whoever starts them and whatever dies."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.journal import progressed, read
from tests.sweeps.conftest import Here

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("launchers")]

SIX = ("dpo.learning_rate_multiplier=0.5,1,2", "seed=1,2", "tracking=none", "name=six")


def numbers(folder: Path) -> dict[str, Any]:
    """Return every value that was measured in each run: not when, and not how fast."""
    return {
        journal.parent.name: [
            (record.event.at, {key: value for key, value in record.event.values.items() if key[:7] != "system/"})
            for record in read(journal)
            if type(record.event).__name__ == "Metrics"  # type: ignore[union-attr]
        ]
        for journal in sorted(folder.glob("runs/six-*/journal.jsonl"))
    }


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, shared_pairs: Path) -> dict[str, Any]:
    here = Here(tmp_path_factory.mktemp("one"), tiny_model, shared_pairs)
    done = here.run(*SIX)
    assert done.returncode == 0, done.stderr
    found = numbers(here.folder)
    assert len(found) == 6
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


@pytest.mark.parametrize("launcher", ["processes", "joblib", "submitit_local"])
def test_processes_on_this_machine_come_to_the_same(launcher: str, there: Here, in_one_process: dict[str, Any]) -> None:
    more = ["hydra.launcher.n_jobs=2"] if launcher in ("processes", "joblib") else []
    done = there.run(*SIX, f"hydra/launcher={launcher}", *more)
    assert done.returncode == 0, done.stderr
    assert numbers(there.folder) == in_one_process
    assert there.summary()["trials"] == 6


def test_ctrl_c_ends_a_sweep_in_other_processes_and_the_same_command_goes_on(there: Here) -> None:
    line = there.line("seed=1,2,3", "dpo.n_epochs=100", "tracking=none", "name=six", "evaluation.every=1000000",
                      "hydra/launcher=processes", "hydra.launcher.n_jobs=2")  # fmt: skip
    process = subprocess.Popen(
        line, cwd=there.folder, env=there.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while b'"Metrics"' not in b"".join(path.read_bytes() for path in there.folder.glob("runs/*/journal.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "go on with the sweep" in errors
    assert "Traceback" not in errors
    assert len(there.summary()["failed"]) == 3
    done = subprocess.run(line, cwd=there.folder, env=there.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert there.summary()["failed"] == []


def test_a_failing_trial_in_another_process_stops_no_other(there: Here) -> None:
    """Its folder is a file, so it cannot begin."""
    planned = there.run(*SIX, "mode=plan").stdout
    name = next(line.split()[-1] for line in planned.splitlines() if "multiplier=1, seed=1" in line)
    (there.folder / "runs").mkdir()
    (there.folder / "runs" / name).write_text("in the way")
    failed = there.run(*SIX, "hydra/launcher=processes", "hydra.launcher.n_jobs=2")
    assert failed.returncode == 1
    assert "1 of 6 trials failed; give the same command again" in failed.stderr
    assert len(numbers(there.folder)) == 5
    (there.folder / "runs" / name).unlink()
    again = there.run(*SIX, "hydra/launcher=processes", "hydra.launcher.n_jobs=2")
    assert again.returncode == 0, again.stderr
    assert "6 trials, 5 finished before, 1 to do" in again.stdout


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


def test_two_nodes_of_a_ray_cluster_come_to_the_same_though_one_dies_in_mid_trial(
    there: Here, cluster: Cluster, in_one_process: dict[str, Any]
) -> None:
    long = ("dpo.n_epochs=80", "evaluation.every=100000")
    process = subprocess.Popen(
        there.line(*SIX, *long, *cluster.overrides), cwd=there.folder, env=there.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def training() -> list[Path]:
        begun = there.folder.glob("runs/six-*/journal.jsonl")
        return [path.parent for path in begun if b'"Metrics"' in path.read_bytes()]

    deadline = time.monotonic() + 120
    while len(training()) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(training()) == 2, "two trials at a time"
    assert not any("save" in progressed(folder).results for folder in training())
    cluster.nodes.remove_node(cluster.second, allow_graceful=False)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    assert there.summary()["trials"] == 6
    assert len(numbers(there.folder)) == 6
    begun = [sum(type(each.event).__name__ == "Started" for each in read(path)) for path in
             there.folder.glob("runs/six-*/journal.jsonl")]  # fmt: skip
    assert sorted(begun) == [1, 1, 1, 1, 1, 2], "the trial of the node that died was taken up on the other"
    whole = Here(there.folder / "whole", there.model, there.rows)
    whole.folder.mkdir()
    assert whole.run(*SIX, *long).returncode == 0
    assert numbers(there.folder) == numbers(whole.folder)
