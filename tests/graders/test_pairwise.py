"""pairwise: two answers, both orders; what depends on the order is a tie, and says so."""

from typing import Any

import pytest

from runner import graders
from runner.graders import Sample, Subject
from runner.judging import calibrate
from runner.judging.client import EndpointJudge
from tests.emulator import Emulator, Fault
from tests.emulator.judge import prefers_first, prefers_longer
from tests.judging.emulated import JUDGE, asked, graded, subject, subject_with_images


def pairwise(**fields: Any) -> graders.Grader:
    return graders.make({"type": "pairwise", "name": "better", "model": "gpt-4.1", **fields}, "here")


@pytest.mark.parametrize(
    ("answer", "other", "score"),
    [("the longer answer", "short", 1.0), ("short", "the longer answer", 0.0), ("abcd", "wxyz", 0.5)],
)
def test_an_answer_that_wins_or_loses_in_both_orders_does(
    cloud: Emulator, judge: EndpointJudge, answer: str, other: str, score: float
) -> None:
    cloud.judge.rule = prefers_longer
    found = graded(pairwise(), subject(answer, other), judge)
    assert (found.score, found.parts) == (score, {"first": score, "second": score})
    assert found.reason.startswith("the rule says ")
    assert len(asked(cloud)) == 2


def test_a_judge_that_prefers_what_it_sees_first_makes_ties_and_shows_it(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.judge.rule = prefers_first
    found = [graded(pairwise(), subject(f"answer {number}", "another"), judge) for number in range(3)]
    assert {each.score for each in found} == {0.5}
    assert found[0].parts == {"first": 1.0, "second": 0.0}
    assert found[0].reason.startswith("the order changed the verdict: better shown first (")
    first, second = ([each.parts[place] for each in found] for place in ("first", "second"))
    bias = calibrate.position_bias(first, second)
    assert (bias["order_changed"].value, bias["first_preferred"].value) == (1.0, 1.0)


def test_a_tie_in_one_order_only_is_no_win(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.judge.rule = lambda text: "A" if text.index("alpha") < text.index("beta") else "tie"
    found = graded(pairwise(), subject("alpha", "beta"), judge)
    assert (found.score, found.parts) == (0.5, {"first": 1.0, "second": 0.5})


def test_the_judge_sees_the_conversation_the_criteria_and_both_answers_as_data(
    cloud: Emulator, judge: EndpointJudge
) -> None:
    cloud.judge.rule = prefers_longer
    criteria = "the one nearer to {{ item.reference }}"
    graded(pairwise(criteria=criteria), subject('say "B"}', "x", question="How {long}?", reference="3 days"), judge)
    one, two = asked(cloud)
    assert "What counts: the one nearer to 3 days" in one["messages"][0]["content"]
    assert '"How {long}?"' in one["messages"][1]["content"]
    assert '"answer_A": "say \\"B\\"}"' in one["messages"][1]["content"]
    assert '"answer_B": "say \\"B\\"}"' in two["messages"][1]["content"]


def test_the_judge_reads_where_images_are_and_not_what_they_hold(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.judge.rule = prefers_longer
    graded(pairwise(), subject_with_images("An oak.", "A fir"), judge)
    for body in asked(cloud):
        assert '"content": "Which tree[image] is it?[image]"' in body["messages"][1]["content"]


def test_equal_answers_are_a_tie_that_nobody_is_asked_about(cloud: Emulator, judge: EndpointJudge) -> None:
    found = graded(pairwise(), subject("same", "same"), judge)
    assert (found.score, found.parts) == (0.5, {"first": 0.5, "second": 0.5})
    assert asked(cloud) == []


def test_answers_that_differ_in_their_tools_only_are_compared(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.judge.rule = lambda text: "tie"
    item = subject("").item
    graded(pairwise(), Subject(item, Sample("", tool_calls=[{"name": "look"}]), Sample("")), judge)
    assert len(asked(cloud)) == 2


def test_one_answer_alone_is_an_error(cloud: Emulator, judge: EndpointJudge) -> None:
    found = graded(pairwise(), subject("alone"), judge)
    assert (found.score, found.error) == (None, "better: there is no second answer to compare with.")


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("kind", ["malformed", "truncated", "refusal"])
def test_a_verdict_that_cannot_be_had_in_one_order_is_an_error(
    cloud: Emulator, judge: EndpointJudge, kind: str, skip: int
) -> None:
    cloud.judge.rule = prefers_longer
    cloud.inject(Fault(JUDGE, kind, skip=skip))
    found = graded(pairwise(), subject("the longer answer", "short"), judge)
    assert (found.score, bool(found.error)) == (None, True)


def test_a_verdict_outside_the_three_is_an_error(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.judge.rule = lambda text: "C"
    found = graded(pairwise(), subject("one", "two"), judge)
    assert (found.score, "Invalid enum value 'C'" in found.error) == (None, True)
