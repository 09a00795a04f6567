"""A run in MLflow: what is logged, that nothing is logged twice, and that MLflow being down costs nothing."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.record.events import Samples
from runner.record.journal import Journal
from tests import stores
from tests.execution.test_resume import arguments, run_command, the_run
from tests.tracking.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server that keeps artifacts itself, on loopback; yields its URI."""
    folder = tmp_path / "server"
    folder.mkdir()
    stores.put_empty(folder)
    made = Server(folder, f"sqlite:///{folder}/mlflow.db")
    yield made.uri
    made.kill()


def tracked(model: Path, data: Path, *more: str) -> list[str]:
    return [each for each in arguments(model, data) if each != "tracking=none"] + list(more)


def test_a_run_is_in_mlflow_whole_and_once(tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    process = run_command(tmp_path, "-m", "runner", *tracked(tiny_model, pairs_file, "tracking.register=house"))
    assert process.returncode == 0, process.stderr
    content = inspect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    plan = json.loads((the_run(tmp_path) / "plan.json").read_bytes())
    assert content["status"] == "FINISHED"
    assert content["params"]["dpo.n_epochs"] == "6"
    assert content["params"]["backend.lora.rank"] == "16"
    assert content["tags"]["runner.plan_id"] == json.loads((the_run(tmp_path) / "report.json").read_bytes())["plan_id"]
    assert content["losses"] == list(range(1, content["losses"][-1] + 1))
    assert {"eval/loss", "eval/reward_accuracy", "train/reward_margin", "system/tokens_per_second"} <= set(
        content["metrics"]
    )
    assert content["datasets"] == {"train": plan["train"]["rows"], "validation": plan["validation"]["rows"]}
    assert {"plan.json", "report.json", "report.md", "samples.json"} <= set(content["artifacts"])
    assert "reward" in content["tags"]["mlflow.note.content"]
    assert content["models"] == 1
    assert content["registered"] == ["house"]
    again = run_command(tmp_path, "-m", "runner", *tracked(tiny_model, pairs_file))
    assert again.returncode == 0
    assert inspect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path) == content


def test_samples_that_are_sent_again_are_in_mlflow_once_and_the_last_ones(
    tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    line = tracked(tiny_model, pairs_file)
    assert run_command(tmp_path, "-m", "runner", *line).returncode == 0
    first = json.loads((the_run(tmp_path) / "samples.json").read_bytes())
    assert samples_in_mlflow(tmp_path) == first
    # As after a stop between the samples and the end of their step: they are asked for once more.
    last = [{**row, "after": "Asked once more."} for row in first]
    for samples in (first, last):
        Journal(the_run(tmp_path) / "journal.jsonl").add(Samples(samples))
        (the_run(tmp_path) / "tracking.json").unlink()  # as after a kill before it was noted what was sent
        process = run_command(tmp_path, "-m", "runner", *line)
        assert process.returncode == 0, process.stderr
        assert samples_in_mlflow(tmp_path) == samples


def samples_in_mlflow(folder: Path) -> list[dict[str, str]]:
    from mlflow import MlflowClient

    run_id = json.loads((the_run(folder) / "tracking.json").read_bytes())["run_id"]
    kept = Path(MlflowClient(f"sqlite:///{folder}/mlflow.db").download_artifacts(run_id, "samples.json"))
    content: dict[str, Any] = json.loads(kept.read_bytes())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


@pytest.mark.parametrize("status", ["finished", ""])
def test_a_store_that_does_not_know_a_run_gets_all_of_it_from_the_same_command(
    status: str, tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    assert run_command(tmp_path, "-m", "runner", *tracked(tiny_model, pairs_file)).returncode == 0
    tracking = the_run(tmp_path) / "tracking.json"
    # Without a status as where it was killed before the end was sent.
    tracking.write_text(tracking.read_text("utf-8").replace('"finished"', f'"{status}"'), "utf-8")
    (tmp_path / "mlflow.db").rename(tmp_path / "gone.db")
    process = run_command(tmp_path, "-m", "runner", *tracked(tiny_model, pairs_file))
    assert process.returncode == 0, process.stderr
    content = inspect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert (content["status"], content["models"]) == ("FINISHED", 1)
    assert content["losses"] == list(range(1, content["losses"][-1] + 1))


INSPECT = """
import json, sys
import mlflow
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
(run,) = client.search_runs([client.get_experiment_by_name("runner").experiment_id])
history = client.get_metric_history(run.info.run_id, "train/loss")
print(json.dumps({
    "status": run.info.status, "params": run.data.params, "metrics": run.data.metrics, "tags": run.data.tags,
    "losses": [each.step for each in history],
    "datasets": {e.tags[0].value: json.loads(e.dataset.profile)["num_rows"] for e in run.inputs.dataset_inputs},
    "artifacts": [each.path for each in client.list_artifacts(run.info.run_id)],
    "models": len(client.search_logged_models([run.info.experiment_id])),
    "registered": [each.name for each in client.search_registered_models()],
}))
"""


def inspect(uri: str, folder: Path) -> dict[str, Any]:
    process = run_command(folder, "-c", INSPECT, uri)
    assert process.returncode == 0, process.stderr
    content: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return content


def test_the_model_loads_from_its_uri_alone_elsewhere(
    server: str, tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir(), elsewhere.mkdir()
    process = run_command(here, "-m", "runner", *tracked(tiny_model, pairs_file, f"tracking.uri={server}"))
    assert process.returncode == 0, process.stderr
    place = json.loads((the_run(here) / "tracking.json").read_bytes())
    samples = json.loads((the_run(here) / "samples.json").read_bytes())
    the_run(here).rename(tmp_path / "gone")
    script = (
        "import sys, json, os, mlflow\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model('models:/' + sys.argv[2])\n"
        "print(json.dumps(model.predict([sys.argv[3]], params=None)))\n"
    )
    load = run_command(elsewhere, "-c", script, server, place["model_id"], samples[0]["prompt"])
    assert load.returncode == 0, load.stderr
    answer = json.loads(load.stdout.splitlines()[-1])[0]
    assert answer.startswith(samples[0]["after"].removesuffix(" […]"))
    environment = {"MLFLOW_TRACKING_URI": server, "RUNNER_CACHE": str(elsewhere / "cache")}
    os.environ.update(environment)
    line = [each for each in arguments(tiny_model, pairs_file) if not each.startswith("model.source")]
    second = run_command(elsewhere, "-m", "runner", *line, f"model.source=models:/{place['model_id']}")
    for name in environment:
        del os.environ[name]
    assert second.returncode == 0, second.stderr


def test_mlflow_being_down_costs_nothing_and_is_made_up_for(tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "mlflow.db"
    blocked.mkdir()  # a folder where the store should be: it cannot be opened
    line = tracked(tiny_model, pairs_file)
    process = run_command(tmp_path, "-m", "runner", *line)
    assert process.returncode == 0, process.stderr
    assert "could not be reached" in process.stdout
    assert (the_run(tmp_path) / "model" / "reference.json").exists()
    blocked.rmdir()
    stores.put_empty(tmp_path)
    assert run_command(tmp_path, "-m", "runner", *line).returncode == 0
    content = inspect(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    assert content["status"] == "FINISHED"
    assert content["models"] == 1
    assert content["losses"] == list(range(1, content["losses"][-1] + 1))
