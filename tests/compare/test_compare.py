"""Who beats whom: the interval is right, and chance wins nothing."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from runner import methods
from runner.compare import page, sentences, verdict
from runner.compare.difference import Difference, compare, rank
from runner.compare.interval import Matrix, estimate, rows_needed
from runner.compare.results import Result, Variant, differing, variants
from runner.errors import RequestError


def result(name: str, values: Any = (), metric: str = "reward_accuracy", **params: Any) -> Result:
    """Return a run that judged so many rows, with such values of a metric."""
    rows = {f"row{number}": {metric: float(value), "weight": 1.0} for number, value in enumerate(values)}
    metrics = {f"eval/{metric}": float(np.mean(values))} if len(values) else {}
    return Result(
        folder=Path(name), plan_id=name, status="finished", message="", params={"seed": 1, "dpo.beta": 0.1} | params,
        metrics=metrics, curves={}, rows=rows, seconds={"train": 1.0},
    )  # fmt: skip


def interval(ours: Matrix, theirs: Matrix) -> tuple[float, float]:
    return estimate(ours, theirs).interval()


def reported(found: Difference) -> str:
    return sentences.sentence(found)


def variant(name: str, *values: Any, metric: str = "reward_accuracy") -> Variant:
    return Variant(name, tuple(result(f"{name}{at}", each, metric, seed=at) for at, each in enumerate(values)))


@pytest.mark.parametrize(
    ("kind", "num_rows"),
    [("normal", 60), ("skewed", 60), ("hits", 60), ("normal", 400), ("skewed", 400), ("hits", 400)],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(kind: str, num_rows: int) -> None:
    """Over 1,000 simulated pairs of runs whose true difference is known."""
    random, covered = np.random.default_rng(7), 0
    for _ in range(1000):
        hard = random.normal(size=num_rows)  # what makes a row hard strikes both
        if kind == "normal":
            ours, theirs, truth = hard + random.normal(0.3, 1, num_rows), hard + random.normal(size=num_rows), 0.3
        elif kind == "skewed":
            ours, theirs, truth = hard + random.exponential(1.0, num_rows), hard + random.normal(size=num_rows), 1.0
        else:
            ours, theirs = (hard + random.normal(shift, 1, num_rows) > 0 for shift in (0.5, 0.0))
            truth = float(stats.norm.cdf(0.5 / np.sqrt(2)) - 0.5)
        low, high = interval(ours[None].astype(float), theirs[None].astype(float))
        covered += low <= truth <= high
    assert 930 <= covered <= 970


def test_the_interval_is_students_where_rows_are_normal() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0.2, 1, (1, 200)), random.normal(0, 1, (1, 200))
    expected = stats.ttest_rel(ours[0], theirs[0]).confidence_interval(0.95)
    assert interval(ours, theirs) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_the_interval_of_a_share_ends_at_100_points() -> None:
    every, none = np.ones((1, 40)), np.zeros((1, 40))
    assert interval(every, none) == (pytest.approx(0.87, abs=0.01), 1.0)
    assert interval(none, every) == (-1.0, pytest.approx(-0.87, abs=0.01))


def test_a_clear_winner_is_named_in_a_sentence() -> None:
    random = np.random.default_rng(1)
    theirs = random.random(400) < 0.6
    ours = theirs | (random.random(400) < 0.1)
    found = compare("eval/reward_accuracy", variant("B", ours), variant("A", theirs))
    assert found.significant
    assert found.mean == pytest.approx(ours.mean() - theirs.mean())
    assert reported(found).startswith(f"B beats A: reward accuracy +{100 * found.mean:.1f} points, 95%")
    assert "400 rows; one seed each" in reported(found)
    turned = compare("eval/reward_accuracy", variant("A", theirs), variant("B", ours))
    assert reported(turned).startswith("B beats A: reward accuracy +")


def test_of_a_loss_less_is_better() -> None:
    low, high = variant("low", np.arange(50) / 100, metric="loss"), variant("high", np.arange(50) / 50, metric="loss")
    assert rank("eval/loss", [high, low]) == [low, high]
    assert reported(compare("eval/loss", high, low)).startswith("low beats high: loss -")


def test_those_that_tie_go_by_the_held_out_loss_then_by_name() -> None:
    def tied(name: str, **more: float) -> Variant:
        metrics = {"eval/reward_accuracy": 1.0} | {f"eval/{key}": value for key, value in more.items()}
        return Variant(name, (replace(result(name), metrics=metrics),))

    four = [tied("none"), tied("b", loss=0.5), tied("a", loss=0.5), tied("c", loss=0.4)]
    for order in (four, four[::-1]):
        assert [each.name for each in rank("eval/reward_accuracy", order)] == ["c", "a", "b", "none"]


def test_too_few_rows_are_said_to_be_too_few_and_how_many_would_do() -> None:
    random = np.random.default_rng(3)
    theirs = random.normal(size=60)
    ours = theirs + random.normal(0.15, 1, 60)
    found = compare("eval/reward_margin", variant("B", ours, metric="reward_margin"),
                    variant("A", theirs, metric="reward_margin"))  # fmt: skip
    assert not found.significant
    assert "no significant difference in reward margin between B and A with these 60 rows; about" in reported(found)
    assert found.enough is not None
    assert found.enough > 60


def test_as_many_rows_as_are_said_show_the_difference_four_times_in_five() -> None:
    random = np.random.default_rng(5)
    needed = rows_needed(random.normal(0.25, 1, 5000))
    assert needed is not None
    shown = [stats.ttest_1samp(random.normal(0.25, 1, needed), 0).pvalue < 0.05 for _ in range(1000)]
    assert 0.7 < np.mean(shown) < 0.9


def test_rows_that_are_few_or_not_there_win_nothing() -> None:
    nothing = compare("eval/reward_accuracy", variant("A", np.ones(50)), variant("B", []))
    assert "no held-out row in common" in reported(nothing)
    assert not nothing.significant
    assert not compare("eval/reward_accuracy", variant("A", [1, 1]), variant("B", [0, 0])).significant, "two rows"
    few = compare("eval/reward_margin", variant("A", [1.0, 1.1, 1.2], metric="reward_margin"),
                  variant("B", [0.0, 0.1, 0.1], metric="reward_margin"))  # fmt: skip
    assert few.low > 0
    assert reported(few).endswith("with these 3 rows; fewer than 10 rows decide nothing")


def test_where_no_row_was_judged_by_the_metric_answers_to_the_same_prompts_decide() -> None:
    random = np.random.default_rng(4)
    styles = [random.random(200) < share for share in (0.9, 0.3)]
    local, hosted = (
        replace(result(backend, style, "in_style", backend=backend), metrics={"eval/reward_accuracy": accuracy})
        for backend, style, accuracy in (("local", styles[0], 0.8), ("foundry", styles[1], 0.7))
    )
    local.rows.update({"another kind": {"reward_accuracy": 1.0}})
    found = verdict.make([hosted, local])
    assert found.metric == "eval/reward_accuracy"
    (difference,) = found.differences
    assert (difference.metric, difference.rows) == ("eval/in_style", 200)
    assert "backend=local beats backend=foundry: answers in style +" in reported(difference)
    assert found.verdict.endswith("but the other one does not differ significantly")


@pytest.mark.parametrize("margin", [0.0, -0.02, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused_whoever_asks(margin: float) -> None:
    with pytest.raises(RequestError, match=r"margin: got .*; allowed: a number above 0"):
        verdict.make([result("a", [0, 1]), result("b", [1, 1])], margin=margin)


def test_rows_that_come_out_alike_are_said_to() -> None:
    same = compare("eval/reward_accuracy", variant("A", np.ones(50)), variant("B", np.ones(50)))
    assert reported(same).startswith("A and B come out alike in reward accuracy on each of 50 rows; another metric")
    assert not same.better


def test_what_is_no_number_is_not_ranked() -> None:
    broken = replace(result("broken", np.ones(20), **{"dpo.beta": 9}), metrics={"eval/reward_accuracy": float("nan")})
    found = verdict.make([broken, result("good", np.zeros(20))])
    assert [each.name for each in found.ranked] == ["dpo.beta=0.1"]
    assert [each.name for each in found.unranked] == ["dpo.beta=9"]


def test_a_value_with_bars_and_line_ends_stays_in_its_cell() -> None:
    reported = verdict.markdown(
        verdict.make([result("a", [1], system="one|two\nthree"), result("b", [0], system="four")])
    )
    assert "| one\\|two three |" in reported


def test_runs_without_metrics_are_said_to_lack_the_one_of_their_method() -> None:
    assert verdict.make([result("a", method="rft")]).verdict == "nothing to rank: no run has eval/reward yet"
    assert verdict.make([result("a", method="sft")]).verdict == "nothing to rank: no run has eval/loss yet"


def test_what_was_measured_in_training_has_no_rows_to_compare_by() -> None:
    low, high = (variant(name, values, metric="loss") for name, values in (("A", np.zeros(50)), ("B", np.ones(50))))
    assert compare("eval/loss", low, high).rows == 50
    assert compare("train/loss", low, high).rows == 0


def test_only_rows_that_both_have_judged_are_compared() -> None:
    assert compare("eval/reward_accuracy", variant("A", np.ones(50)), variant("B", np.zeros(30))).rows == 30


def test_what_seeds_do_widens_the_interval() -> None:
    random = np.random.default_rng(9)
    rows = random.normal(size=(1, 300))
    shifts = np.array([[0.4], [-0.1], [0.3]])
    alone = interval(rows + shifts.mean(), rows)
    together = interval(rows + shifts, np.repeat(rows, 3, 0))
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


def test_seeds_of_one_request_are_no_rivals() -> None:
    random = np.random.default_rng(2)
    runs = [result(f"run{seed}", random.random(400) < 0.5 + 0.2 * seed, seed=seed) for seed in (1, 2)]
    (one,) = variants(runs)
    assert [each.seed for each in one.runs] == [1, 2]
    found = verdict.make(runs)
    assert not found.differences
    assert "none of them wins" in found.sentences[0]
    assert re.fullmatch(r"best by reward accuracy: run1 \(0\.\d+ ± \d\.\d+, 2 seeds\)", found.verdict)


def test_variants_are_named_by_what_sets_them_apart() -> None:
    runs = [result("a", [1, 0]), result("b", [1, 1], **{"dpo.beta": 0.2}), result("c", [1, 1], seed=5)]
    assert differing(runs) == ["dpo.beta"]
    assert {each.name: len(each.runs) for each in variants(runs)} == {"dpo.beta=0.1": 2, "dpo.beta=0.2": 1}
    with pytest.raises(RequestError, match="no run is named"):
        variants([])


def test_what_follows_from_the_method_sets_nothing_apart() -> None:
    runs = [result("a", [1], method="dpo", **{"dataset.fingerprint": "pairs"}), result("b", [1], method="sft")]
    del runs[1].params["dpo.beta"]  # type: ignore[attr-defined]
    assert differing(runs) == ["method"]


def test_runs_on_other_rows_are_not_one_request_even_where_the_files_name_is_the_same() -> None:
    before, after = (result(name, [1], **{"dataset.fingerprint": name}) for name in ("before", "after"))
    assert [each.name for each in variants([before, after])] == [
        "dataset.fingerprint=before", "dataset.fingerprint=after",
    ]  # fmt: skip
    fewer = result("fewer", [1], **{"dataset.fingerprint": "fewer", "dataset.max_rows": 9})
    whole = result("whole", [1], **{"dataset.fingerprint": "whole", "dataset.max_rows": None})
    assert [each.name for each in variants([fewer, whole])] == ["dataset.max_rows=9", "dataset.max_rows=None"]
    changed = result("changed", [1], **{"dataset.fingerprint": "changed", "dataset.max_rows": None})
    assert [each.name for each in variants([fewer, whole, changed])] == [
        "dataset.max_rows=9", "dataset.max_rows=None (whole)", "dataset.max_rows=None (changed)",
    ]  # fmt: skip
    same = result("same", [1], **{"dataset.fingerprint": "whole", "dataset.max_rows": 40}, seed=2)
    (one,) = variants([whole, same])
    assert len(one.runs) == 2, "keys that come to the same rows"


def test_different_methods_are_ranked_by_their_answers_as_their_losses_do_not_compare() -> None:
    runs = [result("a", [0.6] * 20, "loss", method="dpo"), result("b", [0.5] * 20, "loss", method="sft")]
    found = verdict.make(runs)
    assert (found.metric, found.ranked) == ("eval/in_style", ())
    assert found.sentences[0].startswith("different methods measure different things")
    styled = [
        replace(each, metrics={**each.metrics, "eval/in_style": share})
        for each, share in zip(runs, (1, 0), strict=True)
    ]
    assert verdict.make(styled).ranked[0].name == "method=dpo"
    assert verdict.make(runs, "eval/loss").ranked[0].name == "method=sft", "unless it is asked for"
    assert verdict.make(runs, "eval/loss").verdict.startswith("best by least loss: method=sft (0.5)")


def test_the_verdict_says_whether_the_best_can_be_trusted() -> None:
    random = np.random.default_rng(4)
    base = random.random(300) < 0.5
    runs = [
        result("a", base), result("b", base | (random.random(300) < 0.3), **{"dpo.beta": 0.2}),
        result("c", base, **{"dpo.beta": 0.3}),
    ]  # fmt: skip
    found = verdict.make(runs)
    assert found.ranked[0].name == "dpo.beta=0.2"
    assert "better than every other beyond chance" in found.verdict
    assert verdict.make([runs[0], runs[2]]).verdict.endswith("but the other one does not differ significantly")
    three = verdict.make([runs[0], runs[2], result("d", base, **{"dpo.beta": 0.4})])
    assert three.verdict.endswith("but 2 of 2 others do not differ significantly")
    with pytest.raises(RequestError, match="--metric: got eval/f1, which no run has; allowed: eval/reward_accuracy"):
        verdict.make(runs, "eval/f1")


def test_a_page_is_safe_and_holds_everything() -> None:
    runs = [result("a", [1, 0] * 20), result("b", [1, 1] * 20, **{"dpo.beta": "<b>"})]
    found = verdict.make(runs)
    text = page.html(found, "<svg></svg>")
    assert "<svg></svg>" in text
    assert "<td><b></td>" not in text
    reported = verdict.as_json(found)
    assert reported["variants"][0]["values"] == {"dpo.beta": "<b>"}
    assert reported["differences"][0]["sentence"] in verdict.markdown(found)


def test_words_and_amounts_are_those_people_use() -> None:
    assert sentences.words("eval/reward_accuracy") == "reward accuracy"
    assert sentences.amount(methods.metric("eval/reward_accuracy"), 0.031, signed=True) == "+3.1 points"
    assert sentences.amount(methods.metric("eval/loss"), -0.01234, signed=True) == "-0.0123"
