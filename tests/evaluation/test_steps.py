"""Every run grades its answers where graders are named: once, whatever the backend, and never trains again for it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from runner import api
from runner.compare.results import read
from runner.errors import RunnerError
from runner.record import graded, journal
from runner.record.events import Metrics, StepDone
from runner.record.graded import Answer, AnswerGrade, Asked
from tests import warm
from tests.backends.local.parallel.test_ranks import begun
from tests.conftest import pair_row
from tests.emulator import Emulator
from tests.emulator.judge import scores
from tests.judging.emulated import asked
from tests.judging.emulated import cloud as cloud

pytestmark = pytest.mark.slow

JUDGED = {
    "type": "score_model", "name": "right", "model": "judge-1", "range": [0, 1],
    "input": [{"role": "user", "content": "JUDGE {{ item.reference }}: {{ sample.output_text }}"}],
}  # fmt: skip


def line(model: Path, *more: str) -> list[str]:
    return [
        f"model.source=path:{model}", "dataset=files", "dataset.train=pairs.jsonl", "dataset.validation_fraction=0.4",
        "evaluation.samples=3", "evaluation.max_new_tokens=4", "backend.max_steps=2", "tracking=none", "name=one",
        "backend.runtime.threads=1", "backend.learning_rate=0.05", *more,
    ]  # fmt: skip


def command(folder: Path, *given: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    found = warm.run(
        [sys.executable, "-m", "runner", *given],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200", "PYTHONWARNINGS": "ignore"},
    )
    assert found.returncode == code, found.stdout + found.stderr
    return found


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    rows = "".join(json.dumps(pair_row(number)) + "\n" for number in range(10))
    (tmp_path / "pairs.jsonl").write_text(rows, "utf-8")
    (tmp_path / "right.json").write_text(json.dumps(JUDGED), "utf-8")
    return tmp_path


def the_run(folder: Path) -> Path:
    (found,) = folder.glob("runs/one-*")
    return found


def done(folder: Path) -> list[str]:
    events = [record.event for record in journal.read(folder / "journal.jsonl")]
    return [event.step for event in events if isinstance(event, StepDone)]


def test_answers_of_both_models_are_graded_and_the_report_says_how_they_differ(tiny_model: Path, here: Path) -> None:
    said = command(here, *line(tiny_model, "evaluation.graders=[length]", "evaluation.samples_per_prompt=2"))
    run = the_run(here)
    assert done(run) == ["prepare", "train", "save", "evaluate", "sample", "grade"]
    rows = graded.read(run / graded.PROBLEMS, Asked)
    answers = graded.read(run / graded.ANSWERS, Answer)
    grades = graded.read(run / graded.GRADES, AnswerGrade)
    assert [each.fields["reference"] for each in rows] == [each.fields["chosen"] for each in rows]
    assert len(rows) == 3
    assert [(each.model, each.sample) for each in answers] == [
        (m, n) for m in ("base", "tuned") for _ in rows for n in (0, 1)
    ]
    assert [(each.model, each.row, each.sample) for each in grades] == [(a.model, a.row, a.sample) for a in answers]
    measured = [each.event for each in journal.read(run / "journal.jsonl") if isinstance(each.event, Metrics)]
    assert measured[-1].step == 2
    assert measured[-1].values.keys() == {"eval/short", "eval/short_before"}
    report = json.loads((run / "report.json").read_bytes())
    assert report["metrics"]["eval/short"] == sum(each.score or 0 for each in grades if each.model == "tuned") / 6
    assert "tuned and base" in " ".join(said.stdout.split())


def test_other_graders_do_not_train_or_answer_again(tiny_model: Path, here: Path) -> None:
    command(here, *line(tiny_model))
    assert "grade" not in done(the_run(here))
    answers = (the_run(here) / graded.ANSWERS).read_bytes()
    command(here, *line(tiny_model, "evaluation.graders=[length]"))
    command(here, *line(tiny_model, "evaluation.graders=[length,house_style]"))
    assert done(the_run(here)) == ["prepare", "train", "save", "evaluate", "sample", "grade", "grade"]
    assert (the_run(here) / graded.ANSWERS).read_bytes() == answers
    assert "finished before" in command(here, *line(tiny_model, "evaluation.graders=[length,house_style]")).stdout


def test_own_prompts_are_answered_and_their_fields_reach_the_grader(tiny_model: Path, here: Path) -> None:
    (here / "prompts.jsonl").write_bytes(
        msgspec.json.Encoder().encode_lines([{"question": f"{n}?", "answer": str(n)} for n in range(5)])
    )
    same = (
        "{type: string_check, name: same, input: '{{ item.answer }}', reference: '{{ item.reference }}', operation: eq}"
    )
    command(
        here,
        *line(
            tiny_model, "evaluation.prompts=prompts.jsonl", "evaluation.samples=auto", f"evaluation.graders=[{same}]"
        ),
    )
    grades = graded.read(the_run(here) / graded.GRADES, AnswerGrade)
    assert [each.score for each in grades] == [1.0] * 10


def test_a_judge_grades_a_run_and_is_paid_once(tiny_model: Path, here: Path, cloud: Emulator) -> None:
    cloud.judge.rule = scores("JUDGE .*[02468] in cloth")
    graders = "evaluation.graders=[right.json]"
    planned = command(here, *line(tiny_model, graders, "mode=plan")).stdout
    assert "grader right: 6 questions" in planned
    assert asked(cloud) == []
    command(here, *line(tiny_model, graders))
    paid = len(asked(cloud))
    assert 3 <= paid <= 6  # equal answers are one question
    command(here, *line(tiny_model, graders, "again=true"))
    assert len(asked(cloud)) == paid


def test_a_judge_without_its_key_is_reported_before_training(tiny_model: Path, here: Path) -> None:
    found = command(here, *line(tiny_model, "evaluation.graders=[right.json]"), code=2)
    assert found.stderr.startswith(
        "evaluation.judge.key_variable: OPENAI_API_KEY is not set, and grader right asks a judge"
    )
    assert not list(here.glob("runs/*/journal.jsonl"))


def test_ranks_agree_on_the_steps_and_the_first_one_grades(tiny_model: Path, here: Path) -> None:
    with begun(here) as begin:
        given = line(tiny_model, "evaluation.graders=[length]", f"dataset.train={here}/pairs.jsonl")
        run = begin("two", 2, *given).done()
    assert done(run) == ["prepare", "train", "save", "evaluate", "sample", "grade"]
    assert len(graded.read(run / graded.GRADES, AnswerGrade)) == 6


def test_a_grader_decides_which_weights_are_kept_and_its_scores_of_a_mixture_are_shown_by_source(
    tiny_model: Path, here: Path
) -> None:
    for source, numbers in {"chat": range(12), "code": range(12, 24)}.items():
        (here / f"{source}.jsonl").write_text("".join(json.dumps(pair_row(number)) + "\n" for number in numbers))
    shortest = "{type: length, name: shortest, unit: characters, max: 3, tolerance: 40}"
    keys = (
        f"evaluation.graders=[{shortest}]", "evaluation.keep=best", "evaluation.keep_by=shortest", "evaluation.every=2",
        "evaluation.max_new_tokens=8", "backend.max_steps=6", "backend.runtime.checkpoint_every=2",
        "backend.learning_rate=0.5", "dataset.mix={chat:{source:chat.jsonl},code:{source:code.jsonl}}",
    )  # fmt: skip
    command(here, *[each for each in line(tiny_model, *keys) if not each.startswith("dataset.train")])
    run = the_run(here)
    measured = {
        record.event.step: record.event.values["eval/shortest"]
        for record in journal.read(run / "journal.jsonl")
        if isinstance(record.event, Metrics)
        and "eval/loss" in record.event.values
        and "eval/shortest" in record.event.values
    }
    best = max((step for step in measured if step), key=lambda step: (measured[step], -step))
    results = {
        e.step: e.result for e in (r.event for r in journal.read(run / "journal.jsonl")) if isinstance(e, StepDone)
    }
    assert results["train"]["step"] == best
    graded_then = graded.read(run / "checkpoint_grades" / f"step-{best}" / graded.ANSWERS, Answer)
    kept = [each for each in graded.read(run / graded.ANSWERS, Answer) if each.model == "tuned"]
    assert [each.text for each in kept] == [each.text for each in graded_then]
    sources = [each.source for each in graded.read(run / graded.PROBLEMS, Asked)]
    assert set(sources) == {"chat", "code"}  # of three rows, which are not the first three
    result = results["grade"]
    shares = {source: sources.count(source) / len(sources) for source in set(sources)}
    for name in ("shortest", "shortest_before"):
        by_source = sum(share * result[f"eval/{source}/{name}"] for source, share in shares.items())
        assert result[f"eval/{name}"] == pytest.approx(by_source)
    compared = read(run)
    assert compared.metrics["eval/code/shortest"] == result["eval/code/shortest"]
    assert sum("code/shortest" in values for values in compared.rows.values()) == sources.count("code")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("evaluation.keep_by=length",), "evaluation.keep_by: got length; allowed: a grader that looks at one answer"),
        (
            ("evaluation.keep_by=short", "evaluation.graders=[length]", "evaluation.keep=last"),
            "evaluation.keep_by: decides nothing; add evaluation.keep=best or evaluation.patience=2.",
        ),
        (
            ("evaluation.keep_by=short", "evaluation.graders=[length]", "evaluation.samples=0"),
            "evaluation.samples: got 0, but evaluation.keep_by needs answers to grade.",
        ),
    ],
)
def test_what_cannot_decide_is_refused(
    keys: tuple[str, ...], message: str, tiny_model: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    with pytest.raises(RunnerError) as refused:
        api.plan(*line(tiny_model, "evaluation.keep=best", *keys, "mode=plan"))
    assert refused.value.exit_code == 2
    assert str(refused.value).startswith(message)
