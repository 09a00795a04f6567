"""Comparison by graders: of runs and of the models of an evaluation, one or several, with a margin, against chance."""

import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from runner.compare import __main__ as command
from runner.compare import verdict
from runner.compare.difference import compare, corrected
from runner.compare.models import as_json, compare_models
from runner.compare.results import Variant, kind, read_all, read_models
from runner.compare.sentences import sentence
from runner.errors import RequestError
from runner.record import graded
from runner.record.graded import AnswerGrade
from tests.compare.records import run, write_evaluation

RANDOM = np.random.default_rng(11)
BASE = (RANDOM.random(200) < 0.5).astype(float)
BETTER = np.maximum(BASE, RANDOM.random(200) < 0.3)
CLOSE = RANDOM.beta(8, 2, 200)


def pair(ours: list[float], theirs: list[float], grader: str = "correct") -> tuple[Variant, Variant]:
    one, other = (Variant(name, (run(Path(name), {grader: each}),)) for name, each in (("B", ours), ("A", theirs)))
    return one, other


def test_different_methods_and_backends_are_ranked_by_the_first_grader_that_all_have() -> None:
    dpo = run(Path("dpo"), {"only_here": BASE, "correct": BETTER, "close": CLOSE}, method="dpo")
    hosted = run(Path("sft"), {"correct": BASE, "close": CLOSE}, method="sft", backend="foundry")
    found = verdict.make([hosted, dpo])
    assert found.metric == "eval/correct"
    assert found.verdict.startswith("best by correct: method=dpo (")
    (difference,) = found.differences
    assert (difference.rows, difference.better) == (200, True)
    assert "points, 95% interval" in found.sentences[0]


def test_a_graders_name_is_said_with_spaces_and_more_is_better_whatever_its_name() -> None:
    (one, other) = pair(list(CLOSE), list(CLOSE - 0.1), "weight_loss")
    assert kind("eval/weight_loss", one.runs).lower_is_better is False
    found = compare("eval/weight_loss", other, one)
    assert sentence(found).startswith("B beats A: weight loss +0.1, 95% interval")


def test_scores_of_0_and_1_are_said_in_points_and_others_as_they_are() -> None:
    shares, values = run(Path("a"), {"correct": BASE}), run(Path("b"), {"correct": CLOSE})
    assert kind("eval/correct", [shares]).is_share
    assert not kind("eval/correct", [shares, values]).is_share


def test_two_seeds_of_one_request_have_no_winner_by_any_grader() -> None:
    runs = [
        run(Path(f"run{seed}"), {"correct": each, "close": CLOSE}, seed=seed) for seed, each in ((1, BASE), (2, BETTER))
    ]
    for metric in (None, "eval/correct", "graders"):
        found = verdict.make(runs, metric)
        assert found.differences == ()
        assert "none of them wins" in found.sentences[0]


def test_several_metrics_are_corrected_for_being_several_and_one_is_not() -> None:
    runs = [
        run(Path("a"), {"correct": BASE, "close": CLOSE, "short": BASE}, beta=1),
        run(Path("b"), {"correct": BETTER, "close": CLOSE + RANDOM.normal(0.012, 0.08, 200), "short": BASE}, beta=2),
    ]
    alone = {name: verdict.make(runs, f"eval/{name}").differences[0] for name in ("correct", "close", "short")}
    together = verdict.make(runs, "graders")
    assert (together.metric, together.further) == ("eval/correct", ("eval/close", "eval/short"))
    for found in together.differences:
        before = alone[found.metric.removeprefix("eval/")]
        assert (before.family, found.family) == (1, 3)
        assert found.p >= before.p
        assert found.low <= before.low
        assert found.high >= before.high
    correct, close, short = together.sentences
    assert ", p<0.001 corrected for 3 comparisons; one seed each" in correct
    assert "corrected" not in verdict.make(runs, "eval/correct").sentences[0]
    assert "come out alike in short on each of 200 rows" in short
    assert close.startswith("no significant difference in close between")
    assert "corrected for 3 comparisons); about" in close
    assert verdict.make(runs, ["eval/close", "eval/correct"]).metric == "eval/close"
    reported = verdict.as_json(together)
    assert reported["graders"] == ["correct", "close", "short"]
    assert [each["metric"] for each in reported["differences"]] == ["eval/correct", "eval/close", "eval/short"]
    assert "| beta | eval/correct | eval/close | eval/short | runs |" in verdict.markdown(together)


def test_what_holms_steps_decide_is_reported_with_an_interval_that_ends_at_zero() -> None:
    """At p=0.03 the second of two is decided by Holm, while Bonferroni's interval reaches beyond zero."""
    shift = np.tile([1.0, -1.0], 50)
    sure, hardly = shift * 0.1 + 1.0, shift + 0.2215
    found = corrected([compare("eval/x", *pair(list(each), [0.0] * 100, "x")) for each in (sure, hardly)])
    assert found[1].estimate is not None
    assert found[1].estimate.interval(0.975)[0] < 0
    assert (found[1].significant, found[1].low) == (True, 0.0)
    assert found[0].low > 0


def test_a_margin_says_which_is_no_worse_or_how_many_rows_would_decide() -> None:
    noise = RANDOM.normal(0, 0.05, 200)
    one, other = pair(list(CLOSE + noise), list(CLOSE))
    alike = verdict.replace(compare("eval/correct", one, other), margin=0.02)
    assert "is no worse than" in sentence(alike)
    assert "in correct by more than 0.02: 0.0" in sentence(alike)
    few = verdict.replace(compare("eval/correct", *pair(list((CLOSE + noise)[:30]), list(CLOSE[:30]))), margin=0.01)
    assert "by more than 0.01 cannot be decided; about " in sentence(few)
    assert "rows would be needed" in sentence(few)
    worse = verdict.replace(compare("eval/correct", *pair(list(BETTER), list(BASE))), margin=0.02)
    assert sentence(worse).endswith("another may come out otherwise; A is worse than B by more than 2.0 points")
    assert worse.no_worse
    assert not worse.turned.no_worse


def test_rows_that_all_come_out_alike_are_no_worse_where_they_are_many() -> None:
    few, many = (
        verdict.replace(compare("eval/correct", *pair([1.0] * count, [1.0] * count)), margin=0.02)
        for count in (12, 200)
    )
    assert sentence(few).endswith("cannot be decided; about 111 rows would be needed")
    assert "A is no worse than B in correct by more than 2.0 points: 1.0 at worst" in sentence(many)


def test_of_a_loss_no_worse_is_not_much_higher() -> None:
    low, high = (Variant(name, (run(Path(name), {}),)) for name in ("low", "high"))
    for variant, shift in ((low, 0.0), (high, 0.01)):
        variant.runs[0].rows.update({f"row{at}": {"loss": shift + at / 100} for at in range(50)})
    found = verdict.replace(compare("eval/loss", low, high), margin=0.02)
    assert found.no_worse
    assert found.turned.no_worse
    assert "high is no worse than low in loss by more than 0.02: 0.01 at worst" in sentence(found)
    assert not verdict.replace(found, margin=0.005).turned.no_worse


def test_every_grader_is_asked_for_only_where_there_is_one() -> None:
    runs = [run(Path("a"), {"correct": BASE}, beta=1), run(Path("b"), {"close": CLOSE}, beta=2)]
    with pytest.raises(RequestError, match="--metric graders: there is no grader by which all of them were graded"):
        verdict.make(runs, "graders")


def test_the_models_of_an_evaluation_are_variants(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, {"base": {"correct": BASE}, "tuned <1>": {"correct": BETTER}})
    found = verdict.make(read_all(folder))
    assert [each.name for each in found.ranked] == ["model=tuned <1>", "model=base"]
    assert found.verdict.endswith("better than every other beyond chance")
    other = write_evaluation(tmp_path / "other", {"base": {"correct": BASE}})
    names = [each.name for each in verdict.make([*read_all(folder), *read_all(other)]).ranked]
    assert len(set(names)) == 3, "the same model, asked twice, is asked twice"


def test_each_model_is_compared_with_the_first_by_each_grader_corrected(tmp_path: Path) -> None:
    models = {
        "first": {"correct": BASE, "close": CLOSE}, "second": {"correct": BETTER, "close": CLOSE},
        "third": {"correct": BASE, "close": CLOSE - 0.2},
    }  # fmt: skip
    found = compare_models(write_evaluation(tmp_path, models), margin=0.05)
    assert [(each.name, each.other, each.metric) for each in found.differences] == [
        ("second", "first", "eval/correct"), ("second", "first", "eval/close"),
        ("third", "first", "eval/correct"), ("third", "first", "eval/close"),
    ]  # fmt: skip
    assert {each.family for each in found.differences} == {4}
    assert [each.better for each in found.differences] == [True, False, False, False]
    head, rows = found.table
    assert head == ["model", "correct", "close"]
    assert [row[0] for row in rows] == ["first", "second", "third"]
    assert "beyond chance" in rows[1][1]
    assert "(-0.2, -0.2 to -0.2; beyond chance)" in rows[2][2]
    assert "first beats third: close +0.2" in found.sentences[3]
    reported = as_json(found)
    assert [each["name"] for each in reported["models"]] == ["first", "second", "third"]
    assert reported["differences"][1]["no_worse"] is True


def test_of_fewer_than_ten_rows_no_interval_is_shown(tmp_path: Path) -> None:
    """That of two rows goes from -318 to 318 points."""
    few = {"first": {"correct": [0, 0]}, "second": {"correct": [0, 1]}}
    assert compare_models(write_evaluation(tmp_path, few)).table[1][1] == ["second", "0.5 (+50.0 points)"]


def test_a_grader_that_compares_and_has_errors_alone_is_no_tie(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, {"first": {}, "second": {"preferred": [1, 1]}})
    grades = graded.read(folder / graded.GRADES, AnswerGrade)
    failed = [replace(each, score=None, error="refused") for each in grades]
    graded.write(folder / graded.GRADES, [failed[0], grades[1]])
    first, second = read_models(folder)
    assert first.rows == {"row1": {"preferred": 0.5}}
    assert second.rows == {"row1": {"preferred": 1.0}}


def test_a_row_with_several_samples_is_one_row_and_one_with_an_error_is_none(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, {"one": {"correct": [1, 0]}})
    more = [AnswerGrade(model="one", row="row0", sample=1, grader="correct", score=0.0),
            AnswerGrade(model="one", row="row1", sample=1, grader="correct", error="it timed out")]  # fmt: skip
    graded.write(folder / graded.GRADES, [*graded.read(folder / graded.GRADES, AnswerGrade), *more])
    (model,) = read_models(folder)
    assert model.rows == {"row0": {"correct": 0.5}}
    assert model.metrics == {"eval/correct": 0.5}
    assert model.binary == {"correct"}


def test_a_folder_without_grades_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"models": [], "graders": []}', "utf-8")
    with pytest.raises(
        RequestError, match=r"grades.jsonl not found or empty; runner.evaluate with evaluation.graders="
    ):
        read_all(tmp_path)


def test_what_is_named_twice_takes_part_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Overlapping patterns name a run twice, which would be two seeds that agree."""
    folder = write_evaluation(tmp_path / "once", {"one": {"right": [0, 1]}, "two": {"right": [1, 1]}})
    command._compare([str(folder), str(tmp_path / "." / "once" / ".." / "once"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [(each["name"], len(each["runs"])) for each in found["variants"]] == [("model=two", 1), ("model=one", 1)]


def test_a_filter_needs_an_experiment_and_a_store_that_is_not_there_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RequestError, match=r"--filter: .* name that as well, --experiment NAME"):
        command._compare(["--filter", "metrics.x < 1"])
    with pytest.raises(RequestError, match=r"--experiment: got runner, but sqlite:///mlflow.db is not there"):
        command._compare(["--experiment", "runner"])
    assert not list(tmp_path.iterdir())
