"""Checkpoints of a hosted job, evaluated like models: deployed for the time, whatever ends it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from runner.record import graded
from runner.record.graded import Answer
from tests.hosted.rehearsal import standing
from tests.hosted_cli import Hosted, hosted, read_state, sentence

pytestmark = pytest.mark.slow

FOR_ITS_TIME = "backend.deploy=delete_after_eval"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path) as here:
        yield here


def answers(here: Hosted) -> dict[str, str]:
    """Return an answer of each model of the one evaluation that there is."""
    (folder,) = here.folder.glob("runs/evaluations/*")
    return {each.model: each.text for each in graded.read_whole(folder / graded.ANSWERS, Answer)}


def test_a_checkpoint_and_the_model_are_deployed_answer_and_are_removed(here: Hosted) -> None:
    run = here.run()
    early, _ = read_state(run).results["save"]["checkpoints"]
    models = [f"{run.name}@{early['step']}", run.name]
    reported = sentence(here.command("runner.evaluate", *models))
    assert reported == (
        f"runs/{run.name}: its checkpoint at step {early['step']} is not deployed; let python -m runner.evaluate "
        "deploy it for its time with backend.deploy=delete_after_eval."
    )
    done = here.command("runner.evaluate", *models, FOR_ITS_TIME)
    assert done.returncode == 0, done.stdout + done.stderr
    said = answers(here)
    assert said[models[0]].startswith(f"[{early['model'].removeprefix('hosted:')}] ")
    assert said[models[1]].startswith(f"[{here.cloud.created_jobs[0].fine_tuned_model}] ")
    assert standing(here.cloud) == []
    assert not [each for what, each in read_state(run).created if what == "deployment"]
    before = len(here.cloud.requests)
    assert here.command("runner.evaluate", *models, FOR_ITS_TIME).returncode == 0
    assert not [each for each in here.cloud.requests[before:] if each.method == "PUT"], "nothing is deployed again"


def test_what_a_killed_evaluation_has_deployed_is_removed_by_clean_or_by_the_same_command(here: Hosted) -> None:
    run = here.run()
    step = read_state(run).results["save"]["checkpoints"][0]["step"]
    here.cloud.deployment_seconds = 3600
    line = ("runner.evaluate", f"{run.name}@{step}", FOR_ITS_TIME)
    with here.started(*line) as process:
        here.wait(lambda: standing(here.cloud), "the checkpoint to be deployed")
        process.kill()
        process.wait()
    listed = here.command("runner.clean", run.name, typed="n\n")
    assert f"-{step}" in listed.stdout, listed.stdout + listed.stderr
    here.cloud.deployment_seconds = 0.05
    here.cloud.advance(3600)
    done = here.command(*line)
    assert done.returncode == 0, done.stdout + done.stderr
    assert standing(here.cloud) == []
