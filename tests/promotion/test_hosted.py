"""A hosted model is promoted: callers keep the deployment's name, and going back moves it back."""

from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from runner import backends, models, planning
from runner.errors import RequestError
from runner.execution.pipeline import run_and_report
from runner.hosted import generate
from runner.hosted.connection import now
from runner.plan import Run
from runner.promotion import promoting
from runner.promotion.keys import Keys
from runner.record.journal import read_state
from runner.record.samples import Sampling
from tests.emulator import Emulator
from tests.hosted.rehearsal import planned, standing

pytestmark = pytest.mark.slow

BASE = "gpt-4.1-mini"

GRADED = ",".join(
    f"{{type:string_check,name:{name},input:'{{{{sample.output_text}}}}',operation:like,reference:{name}}}"
    for name in ("good", "better")
)


def hosted(folder: Path, *more: str) -> Run:
    """Return a finished run whose answers were graded, tracked in the folder's store."""
    run = planned(
        folder, folder / "runs", "tracking=mlflow", f"tracking.uri=sqlite:///{folder}/mlflow.db",
        f"evaluation.graders=[{GRADED}]",
        f"model.source=hosted:{BASE}", "evaluation.samples=10",
        "backend.deploy=delete_after_eval", *more,
    )  # fmt: skip
    run_and_report(run)
    return planning.load(run.folder)


def tuned(run: Run) -> str:
    """Return the name of a run's model at the service."""
    name = models.hosted_name(f"run:{run.folder}")
    assert name is not None
    return name


def asked(run: Run) -> str:
    """Return what callers get from the deployment that they know."""
    from runner.backends.foundry.connect import service
    from runner.backends.foundry.keys import Foundry
    from runner.data.rows import Message, Prompt

    answer = generate.answer(
        service(Foundry.of(run.request)),
        "bot",
        Prompt((Message(role="user", content="Hello"),)),
        Sampling(max_new_tokens=16),
    )
    return now(answer).text


def test_callers_keep_the_name_of_the_deployment_when_the_model_moves_and_when_it_goes_back(
    cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    runs = tmp_path / "runs"
    cloud.add_deployment("there", BASE)
    cloud.add_deployment("taken", "gpt-4o")
    cloud.answer = lambda model, said: "poor" if model == BASE else f"good, {model}"
    one = hosted(tmp_path, "dpo.n_epochs=1")
    with pytest.raises(RequestError, match=r"^deployment: taken is a deployment of gpt-4o already; choose another"):
        promoting.promote(one, Keys(name="bot", deployment="taken"), runs)
    moved = promoting.promote(one, Keys(name="bot", deployment="bot"), runs)
    assert moved.sentences[-1] == f"deployment bot answers with {tuned(one)}"
    assert asked(one) == f"good, {tuned(one)}"

    cloud.answer = lambda model, said: f"good, {model}" if model == tuned(one) else f"better, {model}"
    two = hosted(tmp_path, "dpo.n_epochs=2")
    moved = promoting.promote(two, Keys(name="bot", metric="better"), runs)
    assert moved.sentences[-1] == f"deployment bot answers with {tuned(two)}; {tuned(one)} stays at the service"
    assert asked(two) == f"better, {tuned(two)}"
    assert backends.of(two).leftovers(read_state(two.folder)) == [
        each for each in backends.of(two).leftovers(read_state(two.folder)) if each.id != "bot"
    ], "what callers use is nothing that runner.clean removes"

    # From a folder that has neither run: what MLflow has is enough.
    assert promoting.go_back(Keys(), tmp_path / "none").version.number == "1"
    assert asked(one) == f"good, {tuned(one)}"
    assert models.identify("models:/bot@champion").source == f"hosted:{tuned(one)}"
    assert promoting.undeploy(Keys(), tmp_path / "none") == "bot"
    assert sorted(standing(cloud)) == ["taken", "there"]
