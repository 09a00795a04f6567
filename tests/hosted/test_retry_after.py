"""How long a service asks us to wait: `Retry-After` in seconds, as a date, and as nonsense."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("openai")

import openai
from azure.core.exceptions import HttpResponseError

from runner.backends.foundry import connect as foundry
from runner.backends.foundry.connect import Service
from runner.backends.foundry.keys import Azure
from runner.errors import RunnerError
from runner.hosted.keys import Polling
from runner.hosted.wording import retry_after
from runner.record.events import Wait
from tests.data.samples import unhurried
from tests.hosted.test_classification import ERROR, AzureAnswer, response


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("5", 5.0), (" 7 ", 7.0), ("0.25", 0.25), (None, None), ("", None), ("soon", None), ("-5", None),
     ("nan", None), ("inf", None), ("1e3", None), ("5 s", None), ("Mon, 99 Foo 2030 25:61:00 GMT", None),
     ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_garbage_is_not_heard(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


@pytest.mark.parametrize(
    "written",
    [
        lambda date: format_datetime(date, usegmt=True),
        lambda date: format_datetime(date.astimezone()),
        lambda date: date.strftime("%a %b %d %H:%M:%S %Y"),
    ],
    ids=["GMT", "local zone", "asctime"],
)
@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone cannot be set here")
def test_retry_after_as_a_date_counts_from_now_in_any_zone(
    written: Callable[[datetime], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "EST5EDT")
    time.tzset()
    try:
        found = retry_after(written(datetime.now(UTC) + timedelta(seconds=30)))
        assert found == pytest.approx(29.5, abs=2)
    finally:
        monkeypatch.undo()
        time.tzset()


@unhurried
@given(st.text() | st.from_regex(r"\A[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{2,5} \d{2}:\d{2}:\d{2}( [A-Z]{3})?\Z"))
def test_no_retry_after_makes_it_fail(value: str) -> None:
    found = retry_after(value)
    assert found is None or found >= 0


def test_a_services_wish_to_wait_is_read_off_either_sdks_answer() -> None:
    headers = {"Retry-After": "7"}
    one = openai.RateLimitError("x", response=response(429, ERROR, headers), body=ERROR["error"])
    other = HttpResponseError(response=AzureAnswer(503, ERROR, {"retry-after": "7"}))
    assert (foundry.classify(one).retry_after, foundry.classify(other).retry_after) == (7.0, 7.0)


@pytest.mark.parametrize("seconds", ["3600", "9" * 400])
def test_nobody_waits_longer_than_the_patience_that_was_asked_for(seconds: str) -> None:
    there = Service("https://example.org/api/projects/p", Azure(), Polling(patience=900))

    def refuse() -> None:
        raise openai.RateLimitError("x", response=response(429, ERROR, {"Retry-After": seconds}), body=ERROR)

    with suppress(RunnerError):
        for event in there.ask("listing files", refuse):
            assert not isinstance(event, Wait) or event.seconds <= 900
            break
