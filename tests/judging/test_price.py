"""What judging will cost, said before anything is asked, and what it did cost."""

import pytest

from runner import graders
from runner.graders import Grader
from runner.judging import price
from runner.judging.client import EndpointJudge
from runner.judging.keys import JudgeKeys
from tests.emulator import Emulator
from tests.emulator.judge import prefers_longer
from tests.judging.emulated import asked, graded, subject

PRICED = JudgeKeys(url="https://judge.example/v1", input_price=2.0, output_price=8.0)


def pairwise(**fields: object) -> Grader:
    return graders.make({"type": "pairwise", "model": "gpt-4.1", **fields}, "here")  # type: ignore[dict-item]


def score_model(text: str = "{{ sample.output_text }}", **fields: object) -> Grader:
    asking = [{"role": "user", "content": text}]
    return graders.make({"type": "score_model", "model": "gpt-4.1", "input": asking, **fields}, "here")  # type: ignore[dict-item]


def test_dollars_are_tokens_times_the_prices_of_a_million() -> None:
    assert price.dollars(500_000, 250_000, PRICED) == 3.0
    assert price.dollars(1, 1, JudgeKeys(input_price=2.0)) is None


def test_a_forecast_counts_four_bytes_a_token_and_the_limit_of_the_answer() -> None:
    grader = score_model(sampling_params={"max_completions_tokens": 50})
    found = price.forecast(grader, [subject("x" * 400), subject("y" * 800)], PRICED)
    assert (found.questions, found.output_tokens) == (2, 100)
    least = 100 + 200 + 2 * price.MESSAGE_TOKENS
    assert least < found.input_tokens < least + 2 * 120  # the form of the answer is sent, too
    assert found.dollars == (found.input_tokens * 2.0 + 100 * 8.0) / 1e6


def test_a_forecast_counts_both_orders_and_equal_questions_once() -> None:
    assert price.forecast(pairwise(), [subject("a", "b"), subject("c", "c")], PRICED).questions == 2
    assert price.forecast(score_model(), [subject("a"), subject("a"), subject("b")], PRICED).questions == 2


def test_a_forecast_is_near_what_is_paid_and_knows_what_is_paid_already(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.judge.rule = prefers_longer
    keys = JudgeKeys(input_price=2.0, output_price=8.0)
    first, second = subject("a longer answer " * 30, "short"), subject("one", "another")
    before = price.forecast(pairwise(), [first, second], keys, judge)
    assert (before.questions, before.cached) == (4, 0)
    assert asked(cloud) == [], "counting asks nobody"
    graded(pairwise(), first, judge)
    after = price.forecast(pairwise(), [first, second], keys, judge)
    assert (after.questions, after.cached) == (2, 2)
    graded(pairwise(), second, judge)
    usage = judge.usage
    assert usage.asked == 4
    # The emulator counts messages alone: what frames them, and the form of the answer, come on top.
    assert usage.input_tokens < before.input_tokens < usage.input_tokens + 4 * 150
    assert price.forecast(pairwise(), [first, second], keys, judge).dollars == 0


@pytest.mark.parametrize(
    ("found", "sentence"),
    [(price.Price(2, 0, 1500, 400, 0.0062), "2 questions; about 1,500 tokens in and 400 out; less than $0.01"),
     (price.Price(2, 3, 10**6, 10**6, 10.0),
      "2 questions, 3 more are answered already; about 1,000,000 tokens in and 1,000,000 out; about $10.00"),
     (price.Price(1, 0, 1, 1, None), "1 questions; about 1 tokens in and 1 out; "
      "price not known: set evaluation.judge.input_price and output_price")],
)  # fmt: skip
def test_a_price_is_a_sentence(found: price.Price, sentence: str) -> None:
    assert found.sentence == sentence
