"""endpoint: a team's own service gives the score; its headers are secrets, wherever the grader goes."""

import copy
import json
import pickle
import time
import traceback
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from runner import graders
from runner.errors import AccessError, RequestError
from runner.graders import endpoint
from runner.graders.secret import Secret
from tests.emulator import Emulator, Fault
from tests.judging.emulated import GRADE, graded, subject

LITERAL = "hunter2-literal"


def make(cloud: Emulator, **fields: Any) -> graders.Grader:
    configuration = {"type": "endpoint", "name": "ours", "url": f"{cloud.base}/grade",
                     "headers": {"x-grader-key": "$GRADER_KEY"}, **fields}  # fmt: skip
    return graders.make(configuration, "here")


def received(cloud: Emulator) -> list[Any]:
    return [request.json() for request in cloud.requests]


def test_the_endpoint_gets_the_answer_and_the_row_and_gives_the_score(cloud: Emulator) -> None:
    cloud.judge.score = lambda body: 0.25 if body["sample"]["output_text"] == "Three days." else 1
    assert graded(make(cloud), subject("Three days.", reference="3 days")).score == 0.25
    (body,) = received(cloud)
    assert list(body) == ["sample", "item", "trace_id"]
    assert body["item"] == {
        "messages": [{"role": "user", "content": "How long does bread keep?"}], "reference": "3 days",
    }  # fmt: skip
    assert len(body["trace_id"]) == 32


@pytest.mark.parametrize("score", [0, 1, 0.5, -2.5, 7])
def test_a_number_is_the_score(cloud: Emulator, score: float) -> None:
    cloud.judge.score = lambda body: score
    assert graded(make(cloud), subject("?")).score == score


@pytest.mark.parametrize("score", [None, "1", True, [1]])
def test_any_other_score_is_an_error(cloud: Emulator, score: object) -> None:
    cloud.judge.score = lambda body: score
    found = graded(make(cloud), subject("?"))
    assert (found.score, found.error.startswith("127.0.0.1: its ")) == (None, True)


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"score": 1', "<html>Welcome</html>", '{"score": NaN}'])
def test_an_answer_without_a_score_is_an_error(cloud: Emulator, body: str) -> None:
    cloud.inject(Fault(GRADE, "status", status=200, body=body))
    found = graded(make(cloud), subject("?"))
    assert (found.score, "is not {" in found.error) == (None, True)


@pytest.mark.parametrize("fault", [
    Fault(GRADE, "status", times=3, status=500),
    Fault(GRADE, "status", times=3, status=429, headers={"Retry-After": "0"}),
    Fault(GRADE, "reset_before", times=3), Fault(GRADE, "reset_after", times=3), Fault(GRADE, "cut", times=3),
], ids=lambda fault: f"{fault.kind}-{fault.details.get('status', '')}")  # fmt: skip
def test_three_retries_help_over_faults_of_the_moment(
    cloud: Emulator, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PAUSE_SECONDS", 0.01)
    cloud.inject(copy.copy(fault))
    assert graded(make(cloud), subject("?")).score == 1.0
    assert len(cloud.requests) == 4


@pytest.mark.parametrize(("fault", "reported"), [
    (Fault(GRADE, "status", times=None, status=503), "it answers 503, 4 times."),
    (Fault(GRADE, "reset_before", times=None), "it cannot be reached, or the connection broke, 4 times."),
    (Fault(GRADE, "slow", times=None, seconds=30), "it does not answer in time, 4 times."),
], ids=lambda each: each.kind if isinstance(each, Fault) else None)  # fmt: skip
def test_an_endpoint_that_fails_on_is_an_error(
    cloud: Emulator, fault: Fault, reported: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(endpoint, "ANSWER_SECONDS", 0.2)
    cloud.inject(copy.copy(fault))
    assert graded(make(cloud), subject("?")).error == f"127.0.0.1: {reported}"
    assert len(cloud.requests) == 4


def test_a_pause_of_more_than_a_minute_is_not_waited_for(cloud: Emulator) -> None:
    cloud.inject(Fault(GRADE, "status", status=429, headers={"Retry-After": "3600"}))
    found = graded(make(cloud), subject("?"))
    assert found.error == "127.0.0.1: it answers 429 and asks to wait 3,600 s, more than 60 s."


@pytest.mark.parametrize("status", [302, 400, 401, 404])
def test_other_answers_are_errors_at_once(cloud: Emulator, status: int) -> None:
    there = {"Location": f"{cloud.base}/elsewhere"}
    cloud.inject(Fault(GRADE, "status", status=status, body=LITERAL, headers=there))
    found = graded(make(cloud), subject("?"))
    assert (found.score, found.error) == (None, f"127.0.0.1: it answers {status}; allowed: 200.")
    assert len(cloud.requests) == 1, "the headers are not taken anywhere else"


def test_more_than_a_megabyte_is_neither_sent_nor_read(cloud: Emulator) -> None:
    found = graded(make(cloud), subject("x" * 1_000_001))
    assert "bytes; allowed: 1,000,000" in found.error
    assert cloud.requests == []
    cloud.inject(Fault(GRADE, "status", status=200, body=" " * 1_000_001))
    assert graded(make(cloud), subject("?")).error == "127.0.0.1: its answer is longer than 1,000,000 bytes."


def test_requests_are_no_closer_together_than_the_rate_allows(cloud: Emulator) -> None:
    with make(cloud, rate_limit=20).grading(None) as grade:
        for _ in range(3):
            grade(subject("?"))
    times = [request.time for request in cloud.requests]
    assert all(later - earlier > 0.03 for earlier, later in pairwise(times))


@pytest.mark.parametrize(
    ("written", "sent"),
    [("$GRADER_KEY", "{}"), ("Bearer $GRADER_KEY", "Bearer {}"), (LITERAL, LITERAL), ("$5 x", "$5 x")],
)
def test_a_headers_value_is_sent_as_it_is_or_read_from_the_environment(
    cloud: Emulator, written: str, sent: str
) -> None:
    graded(make(cloud, headers={"Authorization": written}), subject("?"))
    assert cloud.requests[0].headers["authorization"] == sent.format(cloud.judge.grader_key)


def test_a_variable_that_is_not_set_is_named(cloud: Emulator) -> None:
    with pytest.raises(AccessError, match=r"^ours: headers: NO_SUCH_KEY: not set; "):
        graded(make(cloud, headers={"x-key": "$NO_SUCH_KEY"}), subject("?"))


def test_no_text_that_a_grader_leaves_has_a_secret(cloud: Emulator) -> None:
    grader = make(cloud, headers={"x-grader-key": LITERAL, "x-env": "Bearer $GRADER_KEY"})
    found = graded(grader, subject("?"))  # a wrong key, which the endpoint quotes
    kept = graders.configuration(grader)
    assert kept["headers"] == {"x-grader-key": "***", "x-env": "Bearer $GRADER_KEY"}
    texts = [repr(grader), str(grader), f"{grader}", json.dumps(kept), repr(found), repr(vars(endpoint))]
    texts += list(grader.warnings())
    for encode in (msgspec.json.encode, msgspec.to_builtins, msgspec.msgpack.encode, pickle.dumps):
        with pytest.raises(TypeError) as refused:
            encode(grader)
        texts.append("".join(traceback.format_exception(refused.value)))
    assert [text for text in texts if LITERAL in text or cloud.judge.grader_key in text] == []


def test_a_secret_is_hidden_and_still_itself() -> None:
    secret = Secret(LITERAL)
    assert [str(secret), repr(secret), f"{secret}", f"{[secret]}"] == ["***", "***", "***", "[***]"]
    assert secret.reveal() == LITERAL
    assert copy.deepcopy(secret) == secret == Secret(LITERAL) != Secret("other")
    assert not hasattr(secret, "__dict__")


def test_a_kept_configuration_works_again_where_its_secrets_are_in_the_environment(cloud: Emulator) -> None:
    kept = graders.configuration(make(cloud))
    assert graded(graders.make(kept, "here"), subject("?")).score == 1.0
    lost = graders.configuration(make(cloud, headers={"x-grader-key": cloud.judge.grader_key}))
    with pytest.raises(AccessError, match=r"the secret was not kept, only \*\*\*; write \$NAME"):
        graded(graders.make(lost, "here"), subject("?"))


@pytest.mark.parametrize(
    ("url", "reported"),
    [("http://example.org/grade", "allowed: https://HOST/PATH"), ("ftp://example.org", "allowed: https"),
     ("grade", "allowed: https"), ("https://[::1", "more than an address"),
     (f"https://me:{LITERAL}@example.org/grade", "more than an address"),
     (f"https://example.org/grade?code={LITERAL}", "keys belong in headers, as $NAME")],
)  # fmt: skip
def test_an_address_that_cannot_work_is_refused_without_its_secrets(cloud: Emulator, url: str, reported: str) -> None:
    with pytest.raises(RequestError) as refused:
        make(cloud, url=url)
    assert reported in str(refused.value)
    assert LITERAL not in str(refused.value)


def test_a_header_that_is_no_text_is_refused_without_its_value(cloud: Emulator) -> None:
    with pytest.raises(RequestError, match="got `int`") as refused:
        make(cloud, headers={"x-key": 4815 * 10_000 + 1623})
    assert "48151623" not in "".join(traceback.format_exception(refused.value))


def test_a_secret_written_down_within_a_multi_is_refused_as_a_multi_keeps_what_was_typed(cloud: Emulator) -> None:
    def multi(value: str) -> dict[str, Any]:
        part = {"type": "endpoint", "url": f"{cloud.base}/grade", "headers": {"x-grader-key": value}}
        return {"type": "multi", "graders": {"ours": part}, "calculate_output": "ours"}

    with pytest.raises(RequestError, match=r"^here: graders\.ours\.headers\.x-grader-key: a secret is") as refused:
        graders.make(multi(LITERAL), "here")
    assert LITERAL not in "".join(traceback.format_exception(refused.value))
    assert graded(graders.make(multi("$GRADER_KEY"), "here"), subject("?")).score == 1.0


def test_graders_of_a_request_are_kept_without_their_secrets(cloud: Emulator) -> None:
    def request(value: str) -> list[Any]:
        one = {"type": "endpoint", "url": "https://example.org", "headers": {"x-key": value}, "rate_limit": 2}
        many = {"type": "multi", "graders": {"ours": one}, "calculate_output": "ours"}
        schema = {"properties": {"headers": {"type": "object"}}, "required": ["headers"]}
        return ["house_style", one, many, {"type": "json_schema", "schema": schema}]

    assert graders.hidden(request(LITERAL)) == request("***")
    assert graders.hidden(request("Bearer $GRADER_KEY")) == request("Bearer $GRADER_KEY")
    assert graders.make(request(LITERAL)[3], "here"), "a key that is called headers is no secret elsewhere"


def test_a_secret_that_is_written_down_is_warned_about(cloud: Emulator) -> None:
    assert list(make(cloud).warnings()) == []
    (reported,) = make(cloud, headers={"x-key": LITERAL}).warnings()
    assert "the header x-key is written down" in reported


def test_the_time_a_grader_waits_between_retries_grows(cloud: Emulator) -> None:
    cloud.inject(Fault(GRADE, "status", times=1, status=500))
    began = time.monotonic()
    graded(make(cloud), subject("?"))
    assert time.monotonic() - began > endpoint.PAUSE_SECONDS / 2
