"""A judge behind an OpenAI-compatible endpoint: asked within limits, each question once, no error a silent score."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from runner.errors import AccessError, JudgeError, RequestError
from runner.judging import connection
from runner.judging.client import EndpointJudge, Reseeded, Usage
from runner.judging.connection import find_url
from runner.judging.keys import JudgeKeys
from tests.emulator import Emulator, Fault
from tests.judging.emulated import JUDGE, asked, messages
from tests.waiting import until


def test_the_answer_is_the_models_text(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.judge.rule = lambda text: f"heard: {text}"
    assert '"heard: Is this good?"' in judge.ask("gpt-4.1", messages("Is this good?"), {"seed": 1, "temperature": 0.0})
    assert asked(cloud) == [{"model": "gpt-4.1", "messages": messages("Is this good?"), "seed": 1, "temperature": 0.0}]


def test_a_model_is_asked_by_the_name_that_it_has_at_the_endpoint(cloud: Emulator) -> None:
    with EndpointJudge(JudgeKeys(model_names={"gpt-4.1": "our-judge"})) as judge:
        judge.ask("gpt-4.1", messages("?"), {})
        judge.ask("o3-mini", messages("?"), {})
    assert [body["model"] for body in asked(cloud)] == ["our-judge", "o3-mini"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_fault_of_the_moment_is_asked_through(cloud: Emulator, judge: EndpointJudge, status: int) -> None:
    cloud.inject(Fault(JUDGE, "status", status=status, headers={"Retry-After": "0"}))
    judge.ask("gpt-4.1", messages("?"), {})
    assert len(asked(cloud)) == 2
    assert judge.usage.asked == 1


@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "cut"])
def test_a_lost_answer_is_asked_for_again(cloud: Emulator, judge: EndpointJudge, kind: str) -> None:
    cloud.inject(Fault(JUDGE, kind))
    judge.ask("gpt-4.1", messages("?"), {})
    assert len(asked(cloud)) == 2


@pytest.mark.parametrize("kind", ["reset_after", "cut"])
def test_answers_that_are_lost_again_and_again_are_not_paid_without_end(
    cloud: Emulator, judge: EndpointJudge, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_LOST", 2)
    cloud.inject(Fault(JUDGE, kind, times=None))
    with pytest.raises(JudgeError, match=r"^gpt-4\.1: 127\.0\.0\.1: the connection broke; given up at try 2 "):
        judge.ask("gpt-4.1", messages("?"), {})
    assert list(cloud.judge.paid.values()) == [2]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for_by_every_thread(cloud: Emulator, judge: EndpointJudge, form: str) -> None:
    date = int(time.time()) + 3
    until_then = "1" if form == "seconds" else formatdate(date, usegmt=True)
    cloud.inject(Fault(JUDGE, "status", status=429, headers={"Retry-After": until_then}))
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(judge.ask, "gpt-4.1", messages("first"), {})
        until(lambda: asked(cloud), "first question")
        until(lambda: judge._connection._not_before > began, "pause")
        second = pool.submit(judge.ask, "gpt-4.1", messages("second"), {})
        first.result(), second.result()
    struck, *others = [request.time for request in cloud.requests]
    assert len(others) == 2
    allowed = struck + 1 if form == "seconds" else date
    assert all(each > allowed - 0.05 for each in others)


@pytest.mark.parametrize("headers", [{"Retry-After": "61"}, {"Retry-After": "3600"}, {"Retry-After": "9" * 300}])
def test_a_longer_pause_than_a_minute_is_not_waited_for(
    cloud: Emulator, judge: EndpointJudge, headers: dict[str, str]
) -> None:
    cloud.inject(Fault(JUDGE, "status", status=429, headers=headers))
    with pytest.raises(JudgeError, match=r"it answers 429 .* and asks to wait .* s; given up at try 1 .*60 s for a"):
        judge.ask("gpt-4.1", messages("?"), {})
    assert len(asked(cloud)) == 1


def test_a_failing_endpoint_is_asked_until_the_time_is_over(cloud: Emulator) -> None:
    cloud.inject(Fault(JUDGE, "status", times=None, status=503))
    with (
        EndpointJudge(JudgeKeys(timeout=1.0)) as judge,
        pytest.raises(JudgeError, match=r"it answers 503 .*1 s in all"),
    ):
        judge.ask("gpt-4.1", messages("?"), {})
    assert len(asked(cloud)) >= 2
    assert judge.usage == Usage()


def test_an_endpoint_that_does_not_answer_is_given_up_when_the_time_is_over(cloud: Emulator) -> None:
    cloud.inject(Fault(JUDGE, "slow", times=None, seconds=30))
    with EndpointJudge(JudgeKeys(timeout=0.5)) as judge, pytest.raises(JudgeError, match="no answer in time"):
        judge.ask("gpt-4.1", messages("?"), {})


def test_nobody_there_is_reported(cloud: Emulator) -> None:
    keys = JudgeKeys(url="http://127.0.0.1:9/v1", timeout=0.5)
    with EndpointJudge(keys) as judge, pytest.raises(JudgeError, match="it cannot be reached"):
        judge.ask("gpt-4.1", messages("?"), {})


@pytest.mark.parametrize(
    ("kind", "reported"),
    [("refusal", "the judge refuses to answer: I'm sorry, I can't help with that"),
     ("truncated", "is cut off after .* tokens; raise sampling_params.max_completions_tokens"),
     ("filtered", "the content filter of the endpoint has stopped")],
)  # fmt: skip
def test_an_answer_that_is_none_is_an_error_and_is_paid_once_too(
    cloud: Emulator, judge: EndpointJudge, kind: str, reported: str
) -> None:
    cloud.inject(Fault(JUDGE, kind))
    for _ in range(2):
        with pytest.raises(JudgeError, match=rf"^gpt-4\.1: .*{reported}"):
            judge.ask("gpt-4.1", messages("?"), {})
    assert list(cloud.judge.paid.values()) == [1]


@pytest.mark.parametrize("body", ["", "{}", '{"choices": []}', '{"choices": [', "null", "7"])
def test_what_is_no_chat_completion_is_an_error(
    cloud: Emulator, judge: EndpointJudge, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_LOST", 1)
    cloud.inject(Fault(JUDGE, "status", status=200, body=body, headers={"Content-Type": "application/json"}))
    with pytest.raises(JudgeError, match="no chat completion"):
        judge.ask("gpt-4.1", messages("?"), {})


def test_a_web_page_is_a_wrong_address(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.inject(Fault(JUDGE, "status", status=200, body="<html>Welcome</html>"))
    with pytest.raises(AccessError, match=r"evaluation\.judge\.url: a web page"):
        judge.ask("gpt-4.1", messages("?"), {})


def test_a_question_that_is_refused_is_an_error_and_is_not_repeated(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.inject(Fault(JUDGE, "status", status=400))
    with pytest.raises(JudgeError, match="400 The request is not valid; it refuses the question"):
        judge.ask("gpt-4.1", messages("?"), {})
    assert len(asked(cloud)) == 1
    judge.ask("gpt-4.1", messages("?"), {})
    assert len(asked(cloud)) == 2, "what was not answered is not kept"


@pytest.mark.parametrize(
    ("status", "code", "reported"),
    [(401, "invalid_api_key", "OPENAI_API_KEY"), (403, "denied", "OPENAI_API_KEY"), (404, "x", "model_names"),
     (429, "insufficient_quota", "account")],
)  # fmt: skip
def test_what_holds_for_every_question_stops_the_grading(
    cloud: Emulator, judge: EndpointJudge, status: int, code: str, reported: str
) -> None:
    error = {"error": {"code": code, "message": "Not so.", "param": None, "type": "x"}}
    cloud.inject(Fault(JUDGE, "status", status=status, body=error))
    with pytest.raises(AccessError, match=reported):
        judge.ask("gpt-4.1", messages("?"), {})
    assert len(asked(cloud)) == 1


def test_a_key_that_the_endpoint_quotes_is_not_reported(cloud: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "zq8-not-the-right-one")
    with EndpointJudge(JudgeKeys(key_variable="JUDGE_KEY")) as judge, pytest.raises(AccessError) as refused:
        judge.ask("gpt-4.1", messages("?"), {})
    assert "JUDGE_KEY" in str(refused.value)
    assert "zq8" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_key_that_is_not_set_is_named(cloud: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with EndpointJudge(JudgeKeys()) as judge, pytest.raises(AccessError, match=r"^OPENAI_API_KEY: not set; "):
        judge.ask("gpt-4.1", messages("?"), {})


def entra(cloud: Emulator, monkeypatch: pytest.MonkeyPatch) -> JudgeKeys:
    """Return the keys of a judge that is asked with tokens; the environment has the identity and no key."""
    monkeypatch.delenv("OPENAI_API_KEY")
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        monkeypatch.setenv(name, cloud.environment()[name])
    return JudgeKeys(credential="managed_identity")


def test_a_deployment_without_keys_is_asked_with_a_token_of_azures(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EndpointJudge(entra(cloud, monkeypatch)) as judge:
        assert judge.ask("gpt-4.1", messages("?"), {}) == judge.ask("gpt-4.1", messages("?"), {})
        judge.ask("gpt-4.1", messages("!"), {})
    assert set(cloud.judge.paid.values()) == {1}
    assert len(cloud.identity.issued) == 1, "a token is used until it expires"


def test_a_token_that_is_refused_is_named_by_its_credential_and_never_shown(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EndpointJudge(entra(cloud, monkeypatch)) as judge:
        judge.ask("gpt-4.1", messages("?"), {})
        cloud.identity.revoke()
        with pytest.raises(AccessError, match=r"evaluation\.judge\.credential=managed_identity") as refused:
            judge.ask("gpt-4.1", messages("!"), {})
    assert not any(token in str(refused.value) for token in cloud.identity.issued)


def test_a_credential_that_gives_no_token_is_a_sentence(cloud: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = entra(cloud, monkeypatch)
    monkeypatch.setenv("IDENTITY_HEADER", "another")
    with EndpointJudge(keys) as judge, pytest.raises(AccessError, match=r"gives no token \(.*\); sign in"):
        judge.ask("gpt-4.1", messages("?"), {})


def test_what_is_on_disk_needs_neither_key_nor_endpoint(
    cloud: Emulator, judge: EndpointJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = judge.ask("gpt-4.1", messages("?"), {})
    monkeypatch.delenv("OPENAI_API_KEY")
    with EndpointJudge(JudgeKeys()) as other:
        assert other.ask("gpt-4.1", messages("?"), {}) == answer
        assert other.usage == Usage(cached=1)
    assert len(asked(cloud)) == 1


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_questions_than_the_limit_are_under_way(cloud: Emulator, limit: int) -> None:
    cloud.inject(Fault(JUDGE, "slow", times=None, seconds=0.05))
    with EndpointJudge(JudgeKeys(concurrency=limit)) as judge, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: judge.ask("gpt-4.1", messages(str(number)), {}), range(12)))
    assert cloud.server.most_under_way == limit
    assert set(cloud.judge.paid.values()) == {1}
    assert len(cloud.judge.paid) == 12


def test_waiting_for_ones_turn_does_not_count_as_waiting_for_the_answer(cloud: Emulator) -> None:
    cloud.inject(Fault(JUDGE, "slow", times=None, seconds=0.7))
    with EndpointJudge(JudgeKeys(concurrency=1, timeout=2.0)) as judge, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: judge.ask("gpt-4.1", messages(str(number)), {}), range(4)))
    assert judge.usage.asked == 4


def test_threads_with_the_same_question_ask_once(cloud: Emulator, judge: EndpointJudge) -> None:
    cloud.inject(Fault(JUDGE, "slow", times=None, seconds=0.1))
    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(lambda _: judge.ask("gpt-4.1", messages("?"), {}), range(4)))
    assert len(answers) == 1
    assert list(cloud.judge.paid.values()) == [1]
    assert (judge.usage.asked, judge.usage.cached) == (1, 3)


def test_closing_ends_the_waiting_of_other_threads(cloud: Emulator) -> None:
    cloud.inject(Fault(JUDGE, "status", status=429, headers={"Retry-After": "50"}))
    reported: list[str] = []

    def ask() -> None:
        with pytest.raises(JudgeError) as ended:
            judge.ask("gpt-4.1", messages("?"), {})
        reported.append(str(ended.value))

    with EndpointJudge(JudgeKeys()) as judge:
        thread = threading.Thread(target=ask)
        thread.start()
        until(lambda: judge._connection._not_before > 0, "pause")
    thread.join(20)
    assert reported == ["gpt-4.1: 127.0.0.1: the judge was closed while questions waited."]


def test_tokens_that_were_paid_are_counted(cloud: Emulator, judge: EndpointJudge) -> None:
    for _ in range(2):
        judge.ask("gpt-4.1", messages("x" * 400), {})
    answer = '{"steps": [{"description": "apply the rule", "conclusion": "the rule says 1.0"}], "result": 1.0}'
    assert judge.usage == Usage(asked=1, cached=1, input_tokens=100, output_tokens=len(answer) // 4)


def test_another_seed_is_another_question(cloud: Emulator, judge: EndpointJudge) -> None:
    judge.ask("gpt-4.1", messages("?"), {"seed": 1})
    Reseeded(judge, 2).ask("gpt-4.1", messages("?"), {"seed": 1})
    assert [body["seed"] for body in asked(cloud)] == [1, 2]


@pytest.mark.parametrize(
    ("url", "reported"),
    [("http://example.org/v1", "http only on this machine"), ("ftp://example.org/v1", "allowed: https"),
     ("example.org", "allowed: https"), ("https://[::1/v1", "allowed: https"),
     ("https://me:hunter2@example.org/v1", "more than an address"),
     ("https://example.org/v1?key=hunter2", "more than an address")],
)  # fmt: skip
def test_an_address_that_cannot_be_one_is_refused_without_its_secrets(url: str, reported: str) -> None:
    with pytest.raises(RequestError, match=rf"^evaluation\.judge\.url: .*{reported}") as refused:
        find_url(JudgeKeys(url=url), {})
    assert "hunter2" not in str(refused.value)


def test_the_address_is_the_keys_then_the_environments_then_openais() -> None:
    environment = {"OPENAI_BASE_URL": "https://two.example/v1/"}
    assert find_url(JudgeKeys(url="https://one.example/v1"), environment) == "https://one.example/v1"
    assert find_url(JudgeKeys(), environment) == "https://two.example/v1"
    assert find_url(JudgeKeys(), {}) == "https://api.openai.com/v1"
    assert find_url(JudgeKeys(url="http://gpu-box:8000/v1", key_variable=None), {}) == "http://gpu-box:8000/v1"


def test_a_token_is_not_sent_unencrypted() -> None:
    with pytest.raises(RequestError, match="http only on this machine"):
        connection.find_url(JudgeKeys(url="http://judge.example/v1", key_variable=None, credential="default"), {})


def test_an_endpoint_without_keys_is_asked_without_one(cloud: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with EndpointJudge(JudgeKeys(key_variable=None)) as judge, pytest.raises(AccessError):  # ours wants its own
        judge.ask("gpt-4.1", messages("?"), {})
    assert cloud.requests[-1].headers["authorization"] == "Bearer none"
    assert os.environ["OPENAI_API_KEY"] == cloud.judge.key
