"""`python -m runner.chat` with a hosted run: its deployment answers next to the base model's, or how to make one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from tests.emulator import Fault
from tests.hosted_cli import ALONE, Hosted, hosted, read_state, sentence

pytestmark = pytest.mark.slow

KEEP = "backend.deploy=keep"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path) as here:
        yield here


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_deployed_run_answers_next_to_the_base_model(here: Hosted) -> None:
    here.cloud.add_deployment("base", "gpt-4.1-mini")
    run = here.run(KEEP)
    here.cloud.answer = lambda model, messages: f"I am {model.partition(':')[0]}, you said {messages[-1]['content']}"
    for line in ([run.name], []):
        process = here.command("runner.chat", *line, typed="Hello there\nAnd now?\n\nnot asked\n")
        assert process.returncode == 0, process.stderr
        said = flat(process.stdout)
        for question in ("Hello there", "And now?"):
            assert f"base I am gpt-4.1-mini, you said {question}" in said
            assert f"tuned I am ft, you said {question}" in said
        assert "not asked" not in said


def test_without_a_deployment_of_the_base_model_the_tuned_one_answers_alone(here: Hosted) -> None:
    run = here.run(KEEP)
    process = here.command("runner.chat", run.name, typed="Hello there\n")
    assert process.returncode == 0, process.stderr
    assert "tuned [ft:gpt-4.1-mini:" in flat(process.stdout)
    assert "base" not in process.stdout


# A deployment that is gone again: test_after_cleaning_there_is_nothing_to_talk_to.
@pytest.mark.parametrize("deploy", ["none", pytest.param("delete_after_eval", marks=pytest.mark.exhaustive)])
def test_a_run_that_is_not_deployed_says_how_to_deploy_it(deploy: str, here: Hosted) -> None:
    run = here.run(f"backend.deploy={deploy}")
    reported = sentence(here.command("runner.chat", run.name, typed="Hello\n"))
    assert reported == (
        f"runs/{run.name}: its model is not deployed; give the run's command again with backend.deploy=keep, or "
        "let python -m runner.evaluate deploy it for its time with backend.deploy=delete_after_eval."
    )
    assert here.run(KEEP) == run
    assert here.command("runner.chat", run.name, typed="Hello\n").returncode == 0


def test_after_cleaning_there_is_nothing_to_talk_to(here: Hosted) -> None:
    run = here.run(KEEP)
    assert here.command("runner.clean", "--yes").returncode == 0
    assert "its model is not deployed" in sentence(here.command("runner.chat", run.name, typed="Hello\n"))


def test_a_question_that_the_content_filter_refuses_is_shown_as_refused(here: Hosted) -> None:
    run = here.run(KEEP)
    refusal = {"error": {"code": "content_filter", "message": "The response was filtered."}}
    here.cloud.inject(Fault("POST /responses", "status", status=400, body=refusal))
    process = here.command("runner.chat", run.name, typed="How?\nAnd now?\n")
    assert process.returncode == 0, process.stderr
    assert "[refused by the content filter]" in flat(process.stdout)
    assert "tuned [ft:gpt-4.1-mini:" in flat(process.stdout)


def test_chat_with_a_run_whose_job_has_not_ended_says_to_let_it_finish(here: Hosted) -> None:
    run = here.run(ALONE)
    assert read_state(run).results.keys() == {"upload", "create", "look"}
    reported = sentence(here.command("runner.chat", run.name, typed="Hello\n"))
    assert reported == f"model.source: {run.name} has no model yet; let that run finish first."
