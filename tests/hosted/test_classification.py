"""Every exception of the SDKs is judged and reported in a sentence; so is an answer that is none."""

import inspect
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("openai")

import azure.identity
import httpx2
import openai
from azure.core import exceptions as azure_core

from runner.backends.foundry import connect as foundry
from runner.backends.foundry.connect import Service
from runner.backends.foundry.keys import Azure
from runner.errors import AccessError, DataError, FullError, RequestError, RunnerError, ServiceError
from runner.hosted import faults
from runner.hosted.connection import now
from runner.hosted.keys import Polling
from tests.emulator import Emulator, Fault

pytestmark = pytest.mark.slow

MODULES = (openai, azure_core, azure.identity, httpx2)
ENDPOINT = "https://mine.services.ai.azure.com/api/projects/p"

NOT_OF_A_REQUEST = {
    "openai.InvalidWebhookSignatureError": "checks what a service sent us; we have no webhooks",
    "azure.core.exceptions.SerializationError": "a value of ours that cannot be sent: a bug, to be seen as one",
    "httpx2.CookieConflict": "two cookies of one name are asked for; we ask for none",
    "httpx2.InvalidURL": "a URL of ours that is none: the endpoint is checked before (endpoint.py)",
}
"""Exceptions that are deliberately not caught, and why."""

MISSED = {"azure.core.exceptions.DeserializationError"}
"""Exceptions that should be caught and are not: `test_an_answer_that_is_a_web_page_…` shows how they arise."""


def exceptions() -> Iterator[tuple[str, type[Exception]]]:
    for module in MODULES:
        for name, found in inspect.getmembers(module):
            if not name.startswith("_") and inspect.isclass(found) and issubclass(found, Exception):
                yield f"{module.__name__}.{name}", found


EXCEPTIONS = dict(exceptions())
CAUGHT = {name: found for name, found in EXCEPTIONS.items() if issubclass(found, foundry.FOREIGN)}


def test_every_exception_of_the_sdks_is_caught_or_listed_with_a_reason() -> None:
    assert len(EXCEPTIONS) > 60, "the SDKs keep their exceptions elsewhere now"
    assert EXCEPTIONS.keys() - CAUGHT.keys() - MISSED == NOT_OF_A_REQUEST.keys()


@pytest.mark.parametrize("name", sorted(MISSED))
def test_what_an_odd_answer_raises_is_caught_too(name: str) -> None:
    assert issubclass(EXCEPTIONS[name], foundry.FOREIGN)


REQUEST = httpx2.Request("GET", ENDPOINT)


def response(status: int, body: Any = None, headers: dict[str, str] | None = None) -> httpx2.Response:
    text = body if isinstance(body, str) else json.dumps(body)
    return httpx2.Response(status, text=text, headers=headers, request=REQUEST)


class AzureAnswer:
    """As much of an answer as azure-core's exceptions look at."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.status_code, self.reason, self.headers = status, "because", headers or {}
        self.request = SimpleNamespace(method="GET", url=ENDPOINT)
        self.content_type, self._text = "application/json", body if isinstance(body, str) else json.dumps(body)

    def text(self, encoding: str | None = None) -> str:
        return self._text

    def body(self) -> bytes:
        return self._text.encode()


HTML = "<html>\r\n<head><title>502 Bad\nGateway</title></head>\r\n<body>\r\n<h1>502</h1>\r\n</body>\r\n</html>"
ERROR = {"error": {"code": "Bad", "message": "The first line.\nThe second line.\r\n\tThe third."}}


def made(found: type[Exception]) -> Exception:
    """Return an instance with a text of several lines, as its SDK makes it."""
    parameters = inspect.signature(found.__init__).parameters
    values: dict[str, Any] = {
        "message": "one line\nand another",
        "request": REQUEST,
        "response": AzureAnswer(400, ERROR) if found.__module__.startswith("azure") else response(400, ERROR),
        "body": ERROR,
        "completion": SimpleNamespace(usage=None),
        "scopes": ["scope"],
        "history": [],
        "unsent_messages": [],
    }
    return found(**{name: value for name, value in values.items() if name in parameters})


@pytest.mark.parametrize("name", sorted(CAUGHT))
def test_every_exception_is_reported_in_a_sentence(name: str) -> None:
    fault = foundry.classify(made(CAUGHT[name]))
    error = foundry.error_for(fault, "listing the service's files", ENDPOINT)
    assert isinstance(error, RunnerError)
    assert error.exit_code in (1, 2)
    assert_sentence(str(error))
    assert str(error).startswith("listing the service's files: ")


def assert_sentence(text: str) -> None:
    assert "\n" not in text
    assert "\r" not in text
    assert "  " not in text
    assert text.endswith(".")
    assert not text.endswith("..")
    assert "None" not in text
    assert "<" not in text
    assert len(text) < 900


STATUSES: dict[int, tuple[faults.Kind, type[RunnerError]]] = {
    400: ("refused", RequestError),
    401: ("token", AccessError),
    403: ("role", AccessError),
    404: ("missing", AccessError),
    405: ("refused", RequestError),
    408: ("server", ServiceError),
    409: ("conflict", RequestError),
    413: ("refused", RequestError),
    422: ("refused", RequestError),
    429: ("quota", ServiceError),
    500: ("server", ServiceError),
    502: ("server", ServiceError),
    503: ("server", ServiceError),
    504: ("server", ServiceError),
}
BODIES = {"an error": ERROR, "html": HTML, "nothing": "", "no object": "[1]", "a text": "nope", "empty": {}}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", STATUSES)
def test_both_sdks_answers_are_judged_alike(status: int, body: str) -> None:
    kind, reported = STATUSES[status]
    client = openai.OpenAI(api_key="none", base_url=ENDPOINT)
    errors = (
        client._make_status_error_from_response(response(status, BODIES[body])),
        azure_core.HttpResponseError(response=AzureAnswer(status, BODIES[body])),
    )
    for error in errors:
        fault = foundry.classify(error)
        assert fault.kind == kind
        assert fault.text.startswith(str(status))
        message = foundry.error_for(fault, "creating the job", ENDPOINT)
        assert type(message) is reported
        assert_sentence(str(message))
    client.close()


def test_the_services_own_words_are_reported() -> None:
    error = openai.BadRequestError("x", response=response(400, ERROR), body=ERROR["error"])
    assert foundry.classify(error).text == "400 Bad: The first line. The second line. The third"
    inner = azure_core.HttpResponseError(response=AzureAnswer(400, ERROR))
    assert foundry.classify(inner).text == "400 The first line. The second line. The third"


def test_an_error_with_a_code_and_no_message_is_reported_by_its_code() -> None:
    answer: Any = AzureAnswer(403, {"error": {"code": "AuthorizationFailed"}})
    assert foundry.classify(azure_core.HttpResponseError(response=answer)).text == "403 AuthorizationFailed"


def test_an_answer_that_is_no_json_is_lost_whatever_its_status() -> None:
    answer: Any = AzureAnswer(200, "{")
    assert foundry.classify(azure_core.DecodeError("JSON is invalid", response=answer)).kind == "lost"


def caused(cause: Exception) -> Exception:
    try:
        raise openai.APIConnectionError(request=REQUEST) from cause
    except openai.APIConnectionError as error:
        return error


OF_THE_WIRE: list[tuple[Exception, faults.Kind]] = [
    (httpx2.ConnectError("refused"), "unreachable"),
    (httpx2.ConnectTimeout("slow"), "unreachable"),
    (httpx2.PoolTimeout("full"), "unreachable"),
    (httpx2.ReadTimeout("slow"), "lost"),
    (httpx2.WriteTimeout("slow"), "lost"),
    (httpx2.ReadError("reset"), "lost"),
    (httpx2.WriteError("reset"), "lost"),
    (httpx2.RemoteProtocolError("cut"), "lost"),
    (httpx2.DecodingError("not gzip"), "lost"),
    (json.JSONDecodeError("Expecting value", "{", 1), "lost"),
    (openai.APITimeoutError(request=REQUEST), "lost"),
    (openai.APIResponseValidationError(response(200, "{"), None), "lost"),
    (azure_core.ServiceRequestError("refused"), "unreachable"),
    (azure_core.ServiceRequestTimeoutError("slow"), "unreachable"),
    (azure_core.ServiceResponseError("reset"), "lost"),
    (azure_core.ServiceResponseTimeoutError("slow"), "lost"),
    (azure_core.IncompleteReadError("cut"), "lost"),
]


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (429, "quotaExceeded: The maximum number of queued fine-tuning jobs (20) has been reached.", "full"),
        (400, "Your organization has reached the maximum of 3 active requests for this model.", "full"),
        (403, "The maximum number of files has been reached.", "full"),
        (429, "tooManyRequests: Rate limit is exceeded.", "quota"),
        (400, "Row 7 has more than the maximum number of tokens.", "refused"),
        (500, "quotaExceeded", "server"),
    ],
)
def test_a_service_that_keeps_no_more_is_neither_in_a_hurry_nor_refusing(
    status: int, words: str, kind: faults.Kind
) -> None:
    fault = faults.of_status(status, words, {})
    assert fault.kind == kind
    full = isinstance(faults.error_for(fault, "creating the job", ENDPOINT), FullError)
    assert full == (kind == "full")


@pytest.mark.parametrize(("error", "kind"), OF_THE_WIRE, ids=lambda value: type(value).__name__)
def test_only_a_request_that_cannot_have_arrived_is_surely_not_carried_out(error: Exception, kind: faults.Kind) -> None:
    assert foundry.classify(error).kind == kind
    assert ("lost" in faults.UNCERTAIN, "unreachable" in faults.UNCERTAIN) == (True, False)
    if isinstance(error, httpx2.HTTPError):
        assert foundry.classify(caused(error)).kind == kind


@pytest.mark.parametrize(
    "error",
    [azure_core.ClientAuthenticationError("no way in\n- cli: not logged in\n- environment: not set"),
     azure.identity.CredentialUnavailableError("none here\nnor there")],
)  # fmt: skip
def test_a_credential_that_fails_is_reported_with_how_to_log_in(error: Exception) -> None:
    reported = foundry.error_for(foundry.classify(error), "listing the service's files", ENDPOINT)
    assert isinstance(reported, AccessError)
    assert "az login" in str(reported)
    assert_sentence(str(reported))


@pytest.mark.parametrize(
    "body",
    [{"error": {"code": "content_filter", "message": "The response was filtered."}},
     {"error": {"code": None, "message": "It triggered Azure OpenAI's content management policy."}}],
)  # fmt: skip
def test_a_content_filter_is_no_mere_refusal(body: dict[str, Any]) -> None:
    error = openai.BadRequestError("x", response=response(400, body), body=body["error"])
    assert foundry.classify(error).kind == "filtered"


def test_a_refused_file_is_reported_with_the_services_reason() -> None:
    reported = faults.refused_data("Line 3:\n<b>no</b> assistant.", "train.jsonl (file-1)")
    assert isinstance(reported, DataError)
    assert str(reported).startswith("train.jsonl (file-1): the service refuses this file: Line 3: no assistant; ")
    assert_sentence(str(reported))
    assert "it gives no reason" in str(faults.refused_data("", "train.jsonl"))


def service(cloud: Emulator, patience: float = 0.3) -> Service:
    return Service(cloud.endpoint, Azure(), Polling(every=0.05, requests_per_second=1000, patience=patience))


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator() as cloud:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        yield cloud


ASKED: dict[str, Callable[[Service], Any]] = {
    "GET /files": lambda there: there.collect("listing files", there.openai.files.list),
    "GET /fine_tuning/jobs": lambda there: there.collect("listing jobs", there.openai.fine_tuning.jobs.list),
    "GET /fine_tuning/jobs/{id}": lambda there: there.ask(
        "looking", lambda: there.openai.fine_tuning.jobs.retrieve("ftjob-x").status
    ),
    "GET deployment": lambda there: there.ask(
        "looking", lambda: there.deployments.get(deployment_name="x", **there.manager_options)
    ),
}


@pytest.mark.parametrize("on", ASKED)
def test_an_answer_that_is_a_web_page_is_reported_in_a_sentence(on: str, cloud: Emulator) -> None:
    cloud.inject(Fault(on, "status", times=None, status=200, body="<html><body>Sign in</body></html>"))
    there = service(cloud)
    try:
        with pytest.raises(RunnerError) as error:
            now(ASKED[on](there))
    finally:
        there.close()
    assert_sentence(str(error.value))
