"""The command over real runs: better is promoted, chance and worse are refused, one command goes back.

Each test has a registered model of its own, so that none depends on another.
"""

import json
from pathlib import Path

import pytest

from runner import models
from runner.errors import ModelError
from tests import stores
from tests.promotion.answering import CLOTH, Place

pytestmark = pytest.mark.slow


def test_the_first_model_is_promoted_over_its_base_model_and_the_evidence_is_attached(
    place: Place, tmp_path: Path
) -> None:
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    (run,) = place.folder.glob("runs/no-*")
    (run / "exports").mkdir(exist_ok=True)
    (run / "exports" / "export.json").write_text('{"proven": true}', "utf-8")
    said = place.promote("no-", "name=first")
    assert f"{run.name} beats the base model: no +100.0 points, 95% interval" in said
    assert "models:/first@champion is version 1." in said
    client = MlflowClient(place.store)
    version = client.get_model_version_by_alias("first", "champion")
    assert version.description.startswith(f"{run.name} beats the base model: no +100.0 points")
    kept = Path(download_artifacts(f"{version.source}/evidence", dst_path=str(tmp_path), tracking_uri=place.store))
    decided = json.loads((kept / "promotion.json").read_bytes())
    assert (decided["run"], decided["version"], decided["difference"]["rows"]) == (run.name, "1", 14)
    assert json.loads((kept / "comparison.json").read_bytes())["metric"] == "eval/no"
    for name in ("plan.json", "report.html", "comparison.html", "answers.jsonl", "grades.jsonl"):
        assert (kept / name).stat().st_size > 0
    assert (kept / "exports" / "export.json").exists()
    assert f"{run.name} has first@champion already." in place.promote("no-", "name=first")
    assert len(client.search_model_versions("name = 'first'")) == 1


def test_two_seeds_of_one_request_are_refused_and_so_is_a_worse_model(place: Place) -> None:
    place.promote("no-", "name=refused")
    said = place.promote("seed", "name=refused", code=1)
    assert "are runs of one request, which differ in their seed only: what sets them apart is chance." in said
    said = place.promote("cloth", "name=refused", code=1)
    assert "is not promoted to refused@champion: version 1 beats cloth-" in said
    assert "(now)" in place.promote("name=refused", "history=true")
    assert "refused" not in place.promote("name=refused", "history=true").partition("@")[2]


def test_a_better_model_is_promoted_and_one_command_goes_back(place: Place) -> None:
    place.promote("no-", "name=back")
    assert "cloth +100.0 points" in place.promote("cloth", "name=back", "metric=cloth")
    assert "models:/back@champion is version 1." in place.promote("name=back", "back=true")
    reported = place.promote("name=back", "back=true", code=2)
    assert reported == "back: back@champion: nothing had it before; it was given to: 1, 2; name one with to=N.\n"
    assert "is version 2." in place.promote("name=back", "back=true", "to=2")
    history = [line.split() for line in place.promote("name=back", "history=true").splitlines() if line[:2] == "20"]
    assert [line[2:4] for line in history] == [["1", "none"], ["2", "1"], ["1", "2"], ["2", "(now)"]]


def test_a_model_that_is_no_worse_is_promoted_where_its_answers_cost_less(place: Place) -> None:
    place.promote("cloth", "name=cheap", "metric=cloth")
    assert "come out alike in other" in place.promote("no-", "name=cheap", "metric=other", code=1)
    said = place.promote("no-", "name=cheap", "metric=other", "no_worse_than=0.1", code=1)
    assert "cannot be decided; about" in said, "14 rows leave 13 points"
    said = place.promote("no-", "name=cheap", "metric=other", "no_worse_than=0.2")
    assert "is no worse than version 1 in other by more than 20.0: 13.5 at worst, 14 rows;" in said
    assert "an answer's cost changes by -82 %, 95% interval -82 to -82 %" in said
    said = place.promote("cloth", "name=cheap", "metric=other", "no_worse_than=0.2", code=1)
    assert "it is not cheaper for sure: an answer's cost changes by +467 %" in said


def test_the_model_is_loaded_by_its_alias_in_a_folder_that_has_nothing_but_the_address_of_mlflow(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.promote("cloth", "name=loaded", "metric=cloth")
    (tmp_path / "rows.jsonl").write_bytes((place.folder / "no.jsonl").read_bytes())
    line = [
        "runner", "model.source=models:/loaded@champion", "dataset=files", "dataset.train=rows.jsonl", "method=sft",
        "sft.n_epochs=1", "evaluation.samples=1", "evaluation.max_new_tokens=12", "tracking=none", "name=next",
    ]  # fmt: skip
    done = place.command(*line, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = tmp_path.glob("runs/next-*")
    assert json.loads((run / "samples.json").read_bytes())[0]["before"] == CLOTH
    # What the alias meant then stays in the plan: it may move, and the run's base model must not.
    meant = json.loads((run / "plan.json").read_bytes())["model"]["source"]
    planned = place.command(*line, "mode=plan", folder=tmp_path)
    assert "finished before" in planned.stdout, planned.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.store)
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "other"))
    assert models.identify("models:/loaded@champion").source == meant
    place.promote("no-", "name=loaded", "metric=no")
    assert models.identify("models:/loaded@champion").source != meant
    assert (
        models.identify("models:/loaded/1").source == models.identify("models:/loaded/1", offline=True).source == meant
    )
    with pytest.raises(
        ModelError, match=r"MLflow \(sqlite:.*\) has no models:/loaded@nobody: .* not found; set MLFLOW"
    ):
        models.identify("models:/loaded@nobody")
    with pytest.raises(ModelError, match=r"was never asked for on this machine, so a plan cannot know what it means"):
        models.identify("models:/loaded@nobody", offline=True)


def test_a_store_without_the_model_is_named_and_left_as_it_is(place: Place, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    stores.put_empty(tmp_path)
    (run,) = place.folder.glob("runs/no-*")
    tracking = run / "tracking.json"
    kept, elsewhere = tracking.read_text("utf-8"), f"sqlite:///{tmp_path}/mlflow.db"
    # As where both stores are sqlite:///mlflow.db, each in its own folder.
    tracking.write_text(kept.replace(place.store, elsewhere), "utf-8")
    said = place.promote("no-", "name=moved", code=2, store=elsewhere)
    tracking.write_text(kept, "utf-8")
    assert "its model is not in MLflow" in said
    assert "promote it in the folder where it was made" in said
    assert MlflowClient(elsewhere).search_registered_models() == []


@pytest.mark.parametrize("line", [("no-", "name=n"), ("history=true",), ("back=true",)])
def test_a_store_that_is_not_there_is_named_and_not_made(line: tuple[str, ...], place: Place, tmp_path: Path) -> None:
    said = place.promote(*line, code=2, store=f"sqlite:///{tmp_path}/mlflow.db")
    assert f"sqlite:///{tmp_path}/mlflow.db is not there, where models have their names; give the command in" in said
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_that_has_not_finished_is_refused_by_that(place: Place) -> None:
    (run,) = place.folder.glob("runs/no-*")
    report = run / "report.json"
    kept = report.read_text("utf-8")
    report.write_text(kept.replace('"status": "finished"', '"status": "failed"'), "utf-8")
    said = place.promote("no-", "name=n", code=2)
    report.write_text(kept, "utf-8")
    assert "is failed; give its command again, then promote what it has made" in said


def test_the_command_goes_back_and_says_what_to_type_next(place: Place) -> None:
    place.promote("no-", "name=typed", "as=typed")
    place.promote("cloth", "name=typed", "as=typed", "metric=cloth")
    done = place.command("runner.promote", "back=true", "as=typed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["back from version 2.", "models:/typed@typed is version 1."]
    assert "runner.promote name=typed as=typed back=true" in done.stdout
    refused = place.command("runner.promote", "seed", "name=typed", "as=typed")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        (
            ("no-", "metric=nothing", "name=n"),
            "metric: got nothing, which was not measured of both; allowed: eval/cloth",
        ),
        (("no-", "deployment=bot", "name=n"), "deployment: got bot, but a model of backend=local has none; leave it"),
        (("back=true", "as=nobody"), "as: no registered model has the alias nobody; promote a run first"),
        (("history=true", "name=n", "as=nobody"), "history: nothing ever had n@nobody; look for another name=MODEL"),
    ],
    ids=["metric", "deployment", "name", "history"],
)
def test_what_cannot_be_is_said_in_a_sentence(line: tuple[str, ...], reported: str, place: Place) -> None:
    said = place.promote(*line, code=2)
    assert reported in said
    assert len(said.splitlines()) == 1


def test_a_deployment_that_a_model_cannot_have_is_refused_before_a_version_is_made(place: Place) -> None:
    from mlflow import MlflowClient

    place.promote("cloth", "deployment=bot", "name=undeployed", "metric=cloth", code=2)
    assert "undeployed" not in [each.name for each in MlflowClient(place.store).search_registered_models()]
