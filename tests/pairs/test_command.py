"""`python -m runner.pairs`: rows that training reads, made of an endpoint's answers; nothing is asked or paid twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.pairs import __main__ as command
from tests import warm
from tests.emulator import Emulator
from tests.evaluation.test_evaluate import KILLED_AFTER
from tests.judging.emulated import cloud as cloud

pytestmark = pytest.mark.slow

ROWS, N = 3, 4
JUDGED = {
    "type": "score_model", "name": "right", "model": "judge-1", "range": [0, 4],
    "input": [{"role": "user", "content": "JUDGE {{ item.answer }}: {{ sample.output_text }}"}],
}  # fmt: skip
MAIN = "from runner.pairs import __main__; __main__.main()"
WORDS = ("river", "soap", "moon", "bread", "stone", "glass", "lemon", "clock")


@pytest.fixture
def here(tmp_path: Path, cloud: Emulator) -> Path:
    lines = [json.dumps({"prompt": f"What is {word}?", "answer": word}) + "\n" for word in WORDS[:ROWS]]
    # A fourth prompt, which is the first one over again.
    lines.append(json.dumps({"prompt": f"what is  {WORDS[0]} ?", "answer": WORDS[0]}) + "\n")
    (tmp_path / "prompts.jsonl").write_text("".join(lines), "utf-8")
    (tmp_path / "right.json").write_text(json.dumps(JUDGED), "utf-8")

    def rule(text: str) -> Any:
        """Answer by the seed, and judge an answer by the number in it: 0 to 3."""
        if text.startswith("JUDGE"):
            return int(text.rpartition("grade ")[2][0])
        number = cloud.requests[-1].json()["seed"] % N
        return f"{' '.join(WORDS[number : number + 3])} grade {number}"

    cloud.judge.rule = rule
    return tmp_path


def line(cloud: Emulator, *more: str) -> list[str]:
    url = cloud.judge_environment()["OPENAI_BASE_URL"]
    return [
        "dataset=prompts.jsonl", "grader=right.json", f"model=endpoint:{url}#first", f"n={N}", "margin=0.5",
        "evaluation.max_new_tokens=20", "evaluation.judge.concurrency=1", *more,
    ]  # fmt: skip


def ended(folder: Path, *given: str, code: str = MAIN) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "PYTHONWARNINGS": "ignore"}
    return warm.run([sys.executable, "-c", code, *given], cwd=folder, env=environment)


def made(folder: Path, *given: str) -> str:
    process = ended(folder, *given)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def rows(path: Path) -> list[Any]:
    return [json.loads(each) for each in path.read_text("utf-8").splitlines()]


def test_the_best_answers_are_set_against_the_worst_and_training_reads_them(cloud: Emulator, here: Path) -> None:
    said = made(here, *line(cloud))
    assert "3 prompts, answered 4 times each" in said
    assert "1 more are nearly the same and not asked" in said
    pairs, best = rows(here / "pairs" / "pairs.jsonl"), rows(here / "pairs" / "best.jsonl")
    assert len(pairs) == len(best) == ROWS
    for pair, conversation in zip(pairs, best, strict=True):
        assert "grade 3" in pair["chosen"][0]["content"]
        assert "grade 0" in pair["rejected"][0]["content"]
        assert conversation["messages"] == [*pair["prompt"], *pair["chosen"]]
    card = json.loads((here / "pairs" / "pairs.json").read_bytes())
    assert card["means"] == {"all answers": 0.375, "chosen": 0.75, "rejected": 0.0, "best": 0.75}
    assert card["counts"]["answers"] == ROWS * N
    page = (here / "pairs" / "README.md").read_text("utf-8")
    assert page.startswith("---\ntags: [on-policy, preference]\nconfigs:\n- config_name: pairs\n")
    for experiment, method in {"dpo_on_policy": "dpo", "rejection_sampling": "sft"}.items():
        plan = "from runner.__main__ import main; main()"
        process = ended(here, f"+experiments={experiment}", "mode=plan", "dataset.validation_fraction=0", code=plan)
        assert process.returncode == 0, process.stderr
        assert f"{method} on local, to do" in process.stdout
        assert "warning" not in process.stdout


def test_the_same_command_asks_nothing_again_and_another_margin_neither(cloud: Emulator, here: Path) -> None:
    made(here, *line(cloud))
    before, written = len(cloud.requests), (here / "pairs" / "README.md").read_bytes()
    made(here, *line(cloud))
    assert (here / "pairs" / "README.md").read_bytes() == written
    found = json.loads(made(here, *line(cloud, "margin=0.9", "at_least=0.8", "to=strict"), "--json"))
    assert (found["counts"]["pairs"], found["counts"]["best answers"]) == (0, 0)
    assert len(cloud.requests) == before
    any_score = "note: best.jsonl has best answers whatever their score: at_least=SCORE"
    assert any_score in made(here, *line(cloud))
    assert any_score not in made(here, *line(cloud, "at_least=0.8", "to=strict"))


def test_a_killed_command_continues_and_each_answer_and_judgement_is_paid_once(cloud: Emulator, here: Path) -> None:
    code = KILLED_AFTER.replace("from runner import evaluate\nevaluate.main()", MAIN)
    kills = 0
    while ended(here, *line(cloud), code=code.format(events=5 if kills else 1)).returncode == -signal.SIGKILL:
        kills += 1
        assert kills <= ROWS + ROWS * N + 2, "it makes no progress"
    assert kills >= 3
    made(here, *line(cloud))
    assert len(rows(here / "pairs" / "pairs.jsonl")) == ROWS
    answers = {question: times for question, times in cloud.judge.paid.items() if "JUDGE" not in question}
    assert len(answers) == ROWS * N
    # An answer that was under way when its process was killed is asked again, as nobody has it; a judgement is not.
    assert all(times == 1 for question, times in cloud.judge.paid.items() if "JUDGE" in question)
    assert max(answers.values()) <= 2
    assert sum(answers.values()) <= ROWS * N + kills * N


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["marign=1"], "marign: no such key; did you mean margin? allowed: dataset, grader, model, n, margin"),
        (["evaluation.max_tokens=1"], "evaluation.max_tokens: no such key"),
        (["n=1"], "n: got 1; allowed: an integer ≥ 2."),
        (["grader=absent"], "grader: absent not found; allowed: "),
        (["grader=pairwise"], "grader: preferred compares an answer with another model's"),
        (["evaluation.temperature=0"], "evaluation.temperature: got 0, by which all answers to a prompt are the same"),
        (["dataset=absent.jsonl"], "absent.jsonl: no such file"),
        (["to=own"], "to: own/README.md is there and was not made by runner.pairs, as no pairs.json is next to it;"),
        (["to=by_hand"], "to: by_hand/pairs.jsonl is there and was not made by runner.pairs"),
        (
            ["to=earlier", "dataset=earlier/pairs.jsonl"],
            "to: earlier/pairs.jsonl holds the prompts, and would be overwritten; name another folder.",
        ),
        (["prompts.jsonl"], "pairs: got 'prompts.jsonl'; allowed: KEY=VALUE"),
        (["max_price=0", "evaluation.judge.input_price=1", "evaluation.judge.output_price=1"], "max_price: got 0, but"),
    ],
    ids=lambda value: " ".join(value)[:24],
)
def test_what_cannot_be_made_is_refused_before_anything_is_asked(
    cloud: Emulator, here: Path, given: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = '{"prompt": "What is ice?", "chosen": "Cold.", "rejected": "Hot."}'
    mine = {"own/README.md": "mine", "by_hand/pairs.jsonl": pair, "earlier/pairs.jsonl": pair, "earlier/pairs.json": ""}
    for name, content in mine.items():
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(content, "utf-8")
    monkeypatch.chdir(here)
    with pytest.raises(RunnerError) as refused:
        command._pairs([*line(cloud), *given])
    assert refused.value.exit_code == 2
    assert sentence in str(refused.value)
    assert cloud.requests == []


def test_where_no_answer_has_a_grade_the_reason_is_said(cloud: Emulator, here: Path) -> None:
    cloud.judge.rule = lambda text: "no number" if text.startswith("JUDGE") else text
    said = made(here, *line(cloud))
    assert f"right: {ROWS * N} of {ROWS * N} answers have no grade: judge-1: the judge's answer is not" in said
    assert "warning: no answer has a grade: give the command again when the grader works" in said
    assert "finer scores" not in said


def test_a_plan_asks_nothing_and_writes_nothing(cloud: Emulator, here: Path) -> None:
    said = made(here, *line(cloud), "mode=plan")
    assert "grader right:" in said, "the judge's price"
    assert cloud.requests == []
    assert not (here / "pairs").exists()
