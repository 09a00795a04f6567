"""Faults, tokens and deployments as the real SDKs see them."""

import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import openai
import pytest

from tests.emulator import Emulator, Fault, Script
from tests.emulator.sdk import Client, chat_row, connected

pytestmark = pytest.mark.slow

CREATE = "POST /fine_tuning/jobs"
ONE_JOB = "GET /fine_tuning/jobs/{id}"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    with connected(monkeypatch, "lax") as client:
        yield client


@pytest.mark.parametrize(
    ("kind", "created", "cause"),
    [("reset_before", 0, "reset by peer"), ("reset_after", 1, "reset by peer"), ("cut", 1, "peer closed")],
)
def test_a_lost_answer_is_a_connection_error_whether_the_job_was_created_or_not(
    client: Client, kind: str, created: int, cause: str
) -> None:
    client.cloud.inject(Fault(CREATE, kind))
    with pytest.raises(openai.APIConnectionError) as lost:
        client.order()
    assert cause in str(lost.value.__cause__)
    assert len(client.cloud.created_jobs) == created
    assert client.cloud.requests[-1].status is None
    assert client.order().id in client.cloud.jobs


@pytest.mark.parametrize("kind", ["reset_after", "cut"])
def test_the_sdk_left_to_itself_creates_a_job_twice(client: Client, kind: str) -> None:
    file = client.upload([chat_row(number) for number in range(10)])
    client.cloud.inject(Fault(CREATE, kind))
    client.retrying.fine_tuning.jobs.create(model="gpt-4.1-mini", training_file=file.id)
    assert len(client.cloud.created_jobs) == 2


def test_a_slow_answer_runs_into_the_timeout_after_the_job_was_created(client: Client) -> None:
    file = client.upload([chat_row(number) for number in range(10)])
    client.cloud.inject(Fault(CREATE, "slow", seconds=30))
    with pytest.raises(openai.APITimeoutError):
        client.openai.with_options(timeout=0.3).fine_tuning.jobs.create(model="gpt-4.1-mini", training_file=file.id)
    assert len(client.cloud.created_jobs) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (408, openai.APIStatusError),
        (409, openai.ConflictError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_a_refusal_creates_nothing(client: Client, status: int, error: type[Exception]) -> None:
    client.cloud.inject(Fault(CREATE, "status", status=status))
    with pytest.raises(error) as refused:
        client.order()
    assert refused.value.response.json()["error"]["message"]  # type: ignore[attr-defined]
    assert client.cloud.created_jobs == []


def test_a_gateway_answers_in_html(client: Client) -> None:
    client.cloud.inject(Fault("GET /files", "status", status=502, body="<html>Bad gateway</html>"))
    with pytest.raises(openai.InternalServerError) as refused:
        client.openai.files.list()
    assert refused.value.response.headers["content-type"] == "text/html"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(client: Client, form: str) -> None:
    until = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    client.cloud.inject(Fault("GET /files", "status", status=429, headers={"Retry-After": until}))
    began = time.monotonic()
    client.retrying.files.list()
    assert 0.9 < time.monotonic() - began < 3


def test_skip_and_times_say_which_requests_are_struck(client: Client) -> None:
    client.cloud.inject(Fault("GET /files", "status", status=500, skip=1, times=2))
    client.cloud.inject(Fault("GET /files", "status", status=404))
    answers = []
    for _ in range(5):
        try:
            client.openai.files.list()
            answers.append(200)
        except openai.APIStatusError as error:
            answers.append(error.status_code)
    assert answers == [200, 500, 500, 404, 200]


def test_a_fault_that_can_never_strike_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: POST /files"):
        Emulator().inject(Fault("POST /jobs", "cut"))
    with pytest.raises(ValueError, match="reset_after"):
        Fault(CREATE, "explode")


def test_a_list_repeats_its_first_page(client: Client) -> None:
    jobs = [client.order("supervised").id for _ in range(3)]
    client.cloud.inject(Fault("GET /fine_tuning/jobs", "repeat_page", times=None))
    first = client.jobs.list(limit=3)
    second = client.jobs.list(limit=3, after=first.data[-1].id)
    assert [item.id for item in second.data] == [item.id for item in first.data] == jobs[::-1]
    assert first.has_more
    assert second.has_more


def test_events_come_shuffled_and_repeated_yet_complete(client: Client) -> None:
    job = client.order()
    client.ended(job)
    right = [event.id for event in client.jobs.list_events(job.id)]
    client.cloud.inject(Fault(ONE_JOB + "/events", "shuffle_events", times=None))
    found = [event.id for event in client.jobs.list_events(job.id, limit=10)]
    assert set(found) == set(right)
    assert len(found) > len(right)
    assert list(dict.fromkeys(found)) != right


def test_a_job_vanishes_and_comes_back(client: Client) -> None:
    job = client.order()
    client.cloud.inject(Fault(ONE_JOB, "vanish"))
    with pytest.raises(openai.NotFoundError):
        client.jobs.retrieve(job.id)
    assert client.jobs.retrieve(job.id).id == job.id


def test_a_job_shows_another_status_for_a_while(client: Client) -> None:
    job = client.order()
    client.cloud.inject(Fault(ONE_JOB, "job_status", times=2, value="dreaming"))
    client.cloud.advance(60)
    assert [client.jobs.retrieve(job.id).status for _ in range(3)] == ["dreaming", "dreaming", "succeeded"]


def test_a_wrong_path_is_not_found(client: Client) -> None:
    with pytest.raises(openai.NotFoundError):
        client.openai.with_options(base_url=client.cloud.base + "/elsewhere").files.list()


def test_a_request_that_breaks_off_is_not_carried_out() -> None:
    with Emulator() as cloud:
        with socket.create_connection(("127.0.0.1", cloud.server.server_port)) as half:
            half.sendall(b"GET /msi/token HTTP/1.1\r\nX-IDENTITY-HEADER: rehearsal\r\nContent-Length: 9\r\n\r\nhalf")
            half.shutdown(socket.SHUT_WR)
            assert half.recv(100) == b""
        assert cloud.requests == []


def test_requests_share_a_connection(client: Client) -> None:
    for _ in range(5):
        client.openai.files.list()
    assert len(client.cloud.server.connections) <= 2  # the identity's and the client's


def test_expired_tokens_are_refused_until_a_fresh_identity_signs_in(client: Client) -> None:
    client.openai.files.list()
    client.cloud.expire_tokens()
    for _ in range(2):  # the identity keeps its token: it does not know
        with pytest.raises(openai.AuthenticationError) as refused:
            client.openai.files.list()
        assert refused.value.code == "invalid_token"
    client.sign_in()
    client.openai.files.list()


def test_short_tokens_are_renewed_by_the_sdk(client: Client) -> None:
    client.cloud.token_seconds = 1.2
    client.openai.files.list()
    time.sleep(1.3)
    client.openai.files.list()
    assert len(client.cloud.tokens) > 1
    assert all(token.startswith("secret-token-") for token in client.cloud.tokens)


def test_a_token_opens_only_what_it_is_for(client: Client) -> None:
    other = client.credential.get_token("https://management.azure.com/.default").token
    with pytest.raises(openai.AuthenticationError):
        client.openai.with_options(api_key=other).files.list()


def test_an_identity_that_fails_is_no_openai_error(client: Client) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    body = {"statusCode": 400, "message": "No managed identity found."}
    client.cloud.inject(Fault("GET token", "status", times=None, status=400, body=body))
    with pytest.raises(ClientAuthenticationError):
        client.openai.files.list()


QUICK: dict[str, Any] = {"polling_interval": 0.05, "enforce_https": False}


def test_a_tuned_model_is_deployed_answers_and_is_removed(client: Client) -> None:
    model = client.ended(client.order(suffix="mine")).fine_tuned_model
    deployments = client.deployments()
    made = deployments.begin_create_or_update("rehearsal", "rehearsal", "mine", wanted(model), **QUICK).result()
    assert made.properties.provisioning_state == "Succeeded"
    assert [item.name for item in deployments.list("rehearsal", "rehearsal", enforce_https=False)] == ["mine"]
    found = deployments.get("rehearsal", "rehearsal", "mine", enforce_https=False)
    assert found.properties.model.name == model
    messages: Any = [{"role": "user", "content": "hello"}]
    assert client.openai.responses.create(model="mine", input=messages).output_text == f"[{model}] hello"
    client.cloud.answer = lambda name, said: f"{name == model}, {said[-1]['content']}"
    answer = client.openai.chat.completions.create(model="mine", messages=messages)
    assert answer.choices[0].message.content == "True, hello"
    deployments.begin_delete("rehearsal", "rehearsal", "mine", **QUICK).result()
    assert client.cloud.deployments == {}
    with pytest.raises(openai.NotFoundError) as refused:
        client.openai.responses.create(model="mine", input="hello")
    assert refused.value.code == "DeploymentNotFound"


def test_a_deployment_is_not_found_for_a_while_after_it_succeeded(client: Client) -> None:
    client.cloud.deployment_lag_seconds = 300
    client.deployments().begin_create_or_update(
        "rehearsal", "rehearsal", "base", wanted("gpt-4.1-mini"), **QUICK
    ).result()
    with pytest.raises(openai.NotFoundError, match="within the last 5 minutes"):
        client.openai.responses.create(model="base", input="hello")
    client.cloud.advance(300)
    assert client.openai.responses.create(model="base", input="hello").output_text == "[gpt-4.1-mini] hello"


def test_deployments_are_refused_in_the_resource_managers_way(client: Client) -> None:
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

    deployments = client.deployments()
    with pytest.raises(HttpResponseError, match="does not exist"):
        deployments.begin_create_or_update("rehearsal", "rehearsal", "mine", wanted("ft:none"), **QUICK)
    with pytest.raises(ResourceNotFoundError):
        deployments.get("rehearsal", "rehearsal", "mine", enforce_https=False)
    client.cloud.deployment_seconds = 60
    deployments.begin_create_or_update("rehearsal", "rehearsal", "mine", wanted("gpt-4o"), polling=False, **QUICK)
    with pytest.raises(HttpResponseError, match="Another operation") as refused:
        deployments.begin_create_or_update("rehearsal", "rehearsal", "mine", wanted("gpt-4o"), **QUICK)
    assert refused.value.status_code == 409


def test_what_the_inference_refuses_is_seen(client: Client) -> None:
    client.cloud.add_deployment("base", "gpt-4.1-mini")
    body = {"error": {"code": "content_filter", "message": "The response was filtered.", "param": "prompt"}}
    client.cloud.inject(Fault("POST /responses", "status", status=400, body=body))
    with pytest.raises(openai.BadRequestError) as refused:
        client.openai.responses.create(model="base", input="hello")
    assert refused.value.code == "content_filter"
    assert client.openai.responses.create(model="base", input="hello").output_text == "[gpt-4.1-mini] hello"


def test_leaving_hangs_up_on_slow_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(monkeypatch) as client:
        client.cloud.script = Script()
        client.cloud.inject(Fault("GET /files", "slow", seconds=60))
        with pytest.raises(openai.APITimeoutError):
            client.openai.with_options(timeout=0.2).files.list()
        began = time.monotonic()
    assert time.monotonic() - began < 5


def wanted(model: str) -> Any:
    from azure.mgmt.cognitiveservices.models import Deployment, DeploymentModel, DeploymentProperties, Sku

    described = DeploymentModel(format="OpenAI", name=model, version="1")
    return Deployment(sku=Sku(name="GlobalStandard", capacity=1), properties=DeploymentProperties(model=described))
