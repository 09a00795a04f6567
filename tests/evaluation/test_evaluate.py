"""`python -m runner.evaluate`: any models answer the same rows, a kill costs nothing, nothing is asked twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner import api, evaluate
from runner.backends.local.respondent import Loaded
from runner.errors import RunnerError
from runner.evaluation import evaluate as evaluation
from runner.record import graded
from runner.record.events import Progress
from runner.record.graded import Answer, AnswerGrade
from runner.request import check
from tests import warm
from tests.emulator import Emulator
from tests.emulator.judge import scores
from tests.judging.emulated import asked
from tests.judging.emulated import cloud as cloud

pytestmark = pytest.mark.slow

ROWS = 3
JUDGED = {
    "type": "score_model", "name": "right", "model": "judge-1", "range": [0, 1],
    "input": [{"role": "user", "content": "JUDGE {{ item.answer }}: {{ sample.output_text }}"}],
}  # fmt: skip
EXACT = {
    "type": "string_check", "name": "says_rule", "input": "{{ sample.output_text }}", "reference": "the rule says",
    "operation": "like",
}  # fmt: skip
KILLED_AFTER = """
import os, signal, sys
from runner.execution import execute

heard = 0
def end(work, listener, going=execute.to_its_end):
    def kill(event):
        global heard
        heard += 1
        if heard == {events}:
            os.kill(os.getpid(), signal.SIGKILL)
        listener(event)
    return going(work, kill)

execute.to_its_end = end
from runner import evaluate
evaluate.main()
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    lines = [json.dumps({"prompt": f"What is {number}?", "answer": f"{number}"}) + "\n" for number in range(ROWS)]
    (tmp_path / "prompts.jsonl").write_text("".join(lines), "utf-8")
    for grader in (JUDGED, EXACT):
        (tmp_path / f"{grader['name']}.json").write_text(json.dumps(grader), "utf-8")
    return tmp_path


def line(cloud: Emulator, *more: str) -> list[str]:
    url = cloud.judge_environment()["OPENAI_BASE_URL"]
    return [
        f"endpoint:{url}#first", f"endpoint:{url}#second", "evaluation.prompts=prompts.jsonl", "dataset.style=null",
        "evaluation.graders=[right.json,says_rule.json]", "evaluation.max_new_tokens=20",
        "evaluation.judge.concurrency=1", "tracking=none", *more,
    ]  # fmt: skip


def ended(folder: Path, *given: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "PYTHONWARNINGS": "ignore"}
    return warm.run([sys.executable, "-c", code, *given], cwd=folder, env=environment)


def command(
    folder: Path, *given: str, code: str = "from runner import evaluate; evaluate.main()", ends: int = 0
) -> str:
    process = ended(folder, *given, code=code)
    assert process.returncode == ends, process.stdout + process.stderr
    return process.stdout if not ends else process.stderr


def the_folder(here: Path) -> Path:
    (found,) = here.glob("runs/evaluations/*")
    return found


def test_endpoints_are_asked_and_judged_and_compared(cloud: Emulator, here: Path) -> None:
    cloud.judge.rule = scores("JUDGE 1")
    said = command(here, *line(cloud))
    folder = the_folder(here)
    answers, grades = graded.read(folder / graded.ANSWERS, Answer), graded.read(folder / graded.GRADES, AnswerGrade)
    assert len(answers) == 2 * ROWS
    assert len(grades) == 2 * 2 * ROWS
    assert [each.score for each in grades if each.grader == "right"] == [0.0, 1.0, 0.0] * 2
    assert json.loads((folder / "evaluation.json").read_bytes())["graders"] == ["right", "says_rule"]
    assert "Mean scores" in said
    assert "come out alike in right on each of 3 rows" in " ".join(said.split())
    questions = [body["messages"][0]["content"] for body in asked(cloud)]
    assert sum(text.startswith("JUDGE") for text in questions) == ROWS  # both models gave the same answers


def test_without_a_terminal_each_model_is_named_before_it_has_answered(cloud: Emulator, here: Path) -> None:
    said = command(here, *line(cloud))
    counted = [each.split()[1:] for each in said.splitlines() if each.startswith("  answer ")]
    assert [(count, name.rpartition("#")[2]) for count, name in counted] == [("0/3", "first"), ("0/3", "second")]


def test_answers_that_are_computed_together_are_counted_together_so_that_their_rate_is_right(
    here: Path, tiny_model: Path
) -> None:
    asked_for = [
        "evaluation.prompts=" + str(here / "prompts.jsonl"),
        "evaluation.max_new_tokens=4",
        "dataset.style=null",
    ]
    request = check.request(api.composed("tracking=none", *asked_for))
    planned = evaluation.plan(request, {"tiny": Loaded(f"path:{tiny_model}", "tiny")}, here / "runs")
    counts = [
        each.done for each in evaluation.carry_out(planned) if isinstance(each, Progress) and each.step == "answer"
    ]
    assert counts == [0, ROWS]


def test_the_same_command_asks_nothing_again(cloud: Emulator, here: Path) -> None:
    command(here, *line(cloud))
    before = len(cloud.requests)
    found = json.loads(command(here, *line(cloud), "--json"))
    assert len(cloud.requests) == before
    assert [each["name"].rpartition("#")[2] for each in found["models"]] == ["first", "second"]


def test_a_killed_evaluation_continues_and_pays_each_judgement_once(cloud: Emulator, here: Path) -> None:
    cloud.judge.rule = scores("JUDGE 1")
    undisturbed = here / "undisturbed"
    undisturbed.mkdir()
    for path in here.glob("*.json*"):
        shutil.copy(path, undisturbed)
    os.environ["RUNNER_CACHE"] = str(here / "other-cache")
    command(undisturbed, *line(cloud))
    os.environ["RUNNER_CACHE"] = str(here / "cache")
    events = 2 * ROWS + 1 + 2 * 2 * ROWS + 1  # answers, how many grades there are, grades, what the judge took
    cloud.judge.paid.clear()
    kills = 0
    while ended(here, *line(cloud), code=KILLED_AFTER.format(events=4 if kills else 1)).returncode == -signal.SIGKILL:
        kills += 1
        assert kills <= events, "it does not come on"
    assert kills >= 4
    command(here, *line(cloud))
    for name in (graded.ANSWERS, graded.GRADES):
        assert (the_folder(here) / name).read_bytes() == (the_folder(undisturbed) / name).read_bytes()
    judged = {question: times for question, times in cloud.judge.paid.items() if "JUDGE" in question}
    assert len(judged) == ROWS
    assert set(judged.values()) == {1}


def test_a_field_that_is_missing_is_reported_before_anything_is_sent(cloud: Emulator, here: Path) -> None:
    with (here / "prompts.jsonl").open("a") as file:
        file.write('{"prompt": "And?"}\n')
    said = command(here, *line(cloud), ends=2)
    assert "prompts.jsonl:4: grader right names item.answer, which 1 of 4 rows do not have" in said
    assert cloud.requests == []


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "evaluate: no model is named"),
        (["no-such-run"], "run no-such-run: not found"),
        (["endpoint:example.org"], "endpoint:example.org: needs an address and a model's name"),
        (["nonsense:there"], "nonsense:there: no such model; allowed: a run, RUN@base"),
        (
            ["endpoint:http://127.0.0.1:1/v1#one", "--margin", "-1"],
            "argument --margin: got -1; allowed: a number above 0",
        ),
        (
            ["endpoint:http://127.0.0.1:1/v1#one", "evaluation.graders=[pairwise]"],
            "evaluation.graders: preferred compares two models' answers, and endpoint:http://127.0.0.1:1/v1#one is",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_reported_in_a_sentence(
    models: list[str], message: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    with pytest.raises(RunnerError) as refused:
        evaluate._evaluate([*models, "evaluation.prompts=prompts.jsonl"])
    assert refused.value.exit_code == 2
    assert message in str(refused.value)


def test_a_run_its_base_and_a_checkpoint_answer(tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    run = [
        sys.executable, "-m", "runner", f"model.source=path:{tiny_model}", f"dataset.train={pairs_file}",
        "dataset.validation=null", "dataset.style=null", "dataset.validation_fraction=0.4", "evaluation.samples=2",
        "evaluation.max_new_tokens=4", "backend.max_steps=4", "backend.runtime.checkpoint_every=2", "tracking=none",
        "backend.runtime.checkpoints=2", "backend.learning_rate=0.05", "name=one", "evaluation.graders=[length]",
    ]  # fmt: skip
    process = warm.run(run, cwd=tmp_path, env=os.environ | {"PYTHONWARNINGS": "ignore", "COLUMNS": "200"})
    assert process.returncode == 0, process.stderr
    (folder,) = tmp_path.glob("runs/one-*")
    own = {(each.model, each.row): each.text for each in graded.read(folder / graded.ANSWERS, Answer)}
    command(tmp_path, "one")
    found = {(e.model, e.row): e.text for e in graded.read(the_folder(tmp_path) / graded.ANSWERS, Answer)}
    assert found == {({"base": "one@base", "tuned": "one"}[model], row): text for (model, row), text in own.items()}
    # tracking=none is no other request: the run's rows and its grader stay.
    command(tmp_path, "one", "one@4", "one@2", "evaluation.max_new_tokens=5", "tracking=none")
    (folder,) = tmp_path.glob("runs/evaluations/one-2-*")
    by_model: dict[str, list[str]] = {}
    for each in graded.read(folder / graded.ANSWERS, Answer):
        by_model.setdefault(each.model, []).append(each.text)
    assert by_model["one"] == by_model["one@4"]
    assert by_model["one"] != by_model["one@2"]


def test_own_prompts_are_not_graded_by_the_style_of_the_embedded_data(cloud: Emulator, here: Path) -> None:
    without = [each for each in line(cloud) if not each.startswith(("dataset.", "evaluation.graders"))]
    said = command(here, *without)
    assert "in style" not in said
    assert "no answer is graded: name graders" in said
    assert "runner.compare" not in said
    graded = command(here, *without, "evaluation.graders=[says_rule.json]")
    assert "in style" not in graded
    assert "shows the answers side by side" in graded
    assert "in style" in command(here, *without, "dataset=house_style")
