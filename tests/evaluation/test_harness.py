"""`python -m runner.evaluate MODEL harness=[…]`: tasks of lm-evaluation-harness, run once, compared row by row."""

import json
import math
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from runner.record import graded
from runner.record.graded import Answer, AnswerGrade, Asked
from tests.emulator import Emulator
from tests.evaluation.test_evaluate import command, the_folder
from tests.judging.emulated import asked
from tests.judging.emulated import cloud as cloud

pytestmark = pytest.mark.slow  # the harness imports torch and transformers

NUMBERS = 5


@pytest.fixture
def here(tmp_path: Path) -> Path:
    if find_spec("lm_eval") is None:  # not importorskip: it sets a variable of the environment while it is imported
        pytest.skip("lm-eval is not installed")
    shutil.copytree(Path(__file__).parent / "tasks", tmp_path / "tasks")
    return tmp_path


def results(here: Path) -> dict[tuple[str, str], dict[str, Any]]:
    content = json.loads((the_folder(here) / "harness.json").read_bytes())
    return {(each["model"].rpartition("#")[2], each["name"]): each for each in content["results"]}


def one_too_many(text: str) -> int:
    """Answer with the number asked for; of 3 with another one."""
    number = int(text.rpartition(" ")[2])
    return number + (number == 3)


def test_a_model_that_is_loaded_is_measured_by_a_folder_of_own_tasks(tiny_model: Path, here: Path) -> None:
    line = [f"path:{tiny_model}", "harness=[tasks]", "tracking=none"]
    said = command(here, *line)
    assert "standard error" in said
    found = results(here)
    assert [name for _, name in found] == ["parity.acc", "says.exact_match.digit"]
    grades = graded.read(the_folder(here) / graded.GRADES, AnswerGrade)
    scores = [each.score or 0.0 for each in grades if each.grader == "parity.acc"]
    mean = sum(scores) / NUMBERS
    assert len(scores) == NUMBERS
    parity = found[f"path:{tiny_model}", "parity.acc"]
    assert parity["value"] == pytest.approx(mean)
    assert parity["stderr"] == pytest.approx(math.sqrt(mean * (1 - mean) / (NUMBERS - 1)))
    answers = graded.read(the_folder(here) / graded.ANSWERS, Answer)
    problems = {each.row: each for each in graded.read(the_folder(here) / graded.PROBLEMS, Asked)}
    for each, score in zip(answers, scores, strict=False):
        assert float(each.text == problems[each.row].fields["reference"]) == score
    kept = {path: path.stat().st_mtime_ns for path in the_folder(here).glob("harness/*.json")}
    assert len(kept) == 2
    command(here, *line)
    assert {path: path.stat().st_mtime_ns for path in the_folder(here).glob("harness/*.json")} == kept


def test_endpoints_are_asked_once_and_compared_row_by_row_until_the_task_changes(cloud: Emulator, here: Path) -> None:
    url = cloud.judge_environment()["OPENAI_BASE_URL"]
    cloud.judge.rule = one_too_many
    line = [f"endpoint:{url}#first", f"endpoint:{url}#second", "harness=[tasks/says.yaml]", "tracking=none"]
    said = command(here, *line, "evaluation.max_rows=4")
    assert "come out alike in says.exact match.digit on each of 4 rows" in " ".join(said.split())
    found = results(here)
    for model in ("first", "second"):
        assert found[model, "says.exact_match.digit"]["value"] == 0.75
        assert found[model, "says.exact_match.digit"]["rows"] == 4
    before = len(asked(cloud))
    assert before == 2 * 4
    reported = json.loads(command(here, *line, "evaluation.max_rows=4", "--json"))
    assert reported["benchmarks"]["results"][0]["stderr"] == pytest.approx(0.25)
    assert len(asked(cloud)) == before
    with (here / "tasks" / "numbers.jsonl").open("w") as file:
        file.write('{"number": 0, "parity": 0}\n{"number": 3, "parity": 1}\n')
    command(here, *line, "evaluation.max_rows=4")
    assert found.keys() == results(here).keys()
    assert {(each["value"], each["rows"]) for each in results(here).values()} == {(0.5, 2)}
    assert len(asked(cloud)) == before + 2 * 2


def test_what_a_task_or_an_endpoint_cannot_do_is_a_sentence_without_the_key(cloud: Emulator, here: Path) -> None:
    url = cloud.judge_environment()["OPENAI_BASE_URL"]
    said = command(here, f"endpoint:{url}#first", "harness=[tasks/parity.yaml]", "tracking=none", ends=2)
    assert "harness: tasks/parity.yaml needs the probabilities of given answers, which endpoint:" in said
    wrong = "secret-token-that-is-wrong"
    code = f"import os; os.environ['OPENAI_API_KEY'] = '{wrong}'; from runner import evaluate; evaluate.main()"
    said = command(here, f"endpoint:{url}#first", "harness=[tasks/says.yaml]", "tracking=none", code=code, ends=1)
    assert "harness: endpoint:" in said
    assert "401" in said
    assert wrong not in said
