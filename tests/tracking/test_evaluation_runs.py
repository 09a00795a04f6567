"""An evaluation in MLflow: a run for each model with its metrics and graded rows, however often it is written."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runner import api
from runner.request import check
from runner.tracking import evaluation_runs
from tests import stores
from tests.tracking import graded_rows

pytestmark = pytest.mark.slow

ROWS = 4
NAMES = ("base", "tuned")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an evaluation of two models; the store is in the current folder."""
    monkeypatch.chdir(tmp_path)
    stores.put_empty(tmp_path)
    folder = tmp_path / "evaluations" / "it's-12345678"
    graded_rows.put(folder, ROWS)
    put_summary(folder, 0.375)
    return folder


def put_summary(folder: Path, tuned: float) -> None:
    metrics = {"base": {"style": 0.25}, "tuned": {"style": tuned, "style_passed": 0.5}}
    content = {"models": NAMES, "identities": ["digest", "other"], "metrics": metrics}
    (folder / "evaluation.json").write_bytes(msgspec.json.encode(content))


def runs() -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient("sqlite:///mlflow.db")
    experiment = client.get_experiment_by_name("runner").experiment_id  # type: ignore[union-attr]
    found = client.search_runs([experiment])
    assert len(found) == len(NAMES)
    return {run.data.tags["runner.model"]: (run, client) for run in found}


def test_each_model_is_a_run_with_its_metrics_and_rows_and_a_second_time_changes_nothing(folder: Path) -> None:
    request = check.request(api.composed())
    for _ in range(2):
        assert evaluation_runs.write(request, folder) == ""
    found = runs()
    for name in NAMES:
        run, client = found[name]
        assert run.info.status == "FINISHED"
        assert run.data.tags["runner.graded_rows"] == f"{ROWS} of {ROWS} rows"
        traces = client.search_traces(locations=[run.info.experiment_id], run_id=run.info.run_id)
        assert len(traces) == ROWS
        assert {each.info.tags["mlflow.traceName"] for each in traces} == {name}
        assert len(client.get_metric_history(run.info.run_id, "eval/style")) == 1
        assert {each.path for each in client.list_artifacts(run.info.run_id)} >= {"evaluation.json", "grades.jsonl"}
    assert found["tuned"][0].data.metrics == {"eval/style": 0.375, "eval/style_passed": 0.5}
    put_summary(folder, 0.5)
    evaluation_runs.write(request, folder)
    assert runs()["tuned"][0].data.metrics["eval/style"] == 0.5


def test_what_is_not_tracked_is_not_written_and_a_store_that_fails_is_reported(folder: Path, tmp_path: Path) -> None:
    assert evaluation_runs.write(check.request(api.composed("tracking=none")), folder) == ""
    with closing(sqlite3.connect("mlflow.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM runs").fetchone() == (0,)
    (tmp_path / "broken.db").write_bytes(b"no database" * 100)
    problem = evaluation_runs.write(check.request(api.composed("tracking.uri=sqlite:///broken.db")), folder)
    assert "file is not a database" in problem
