"""What may be a secret is struck out of every text that comes from elsewhere, wherever in it the secret is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("openai")

import httpx2
import openai

from runner.hosted import faults
from runner.hosted.wording import redact
from tests.data.samples import unhurried

URL_SAFE = st.text("abcXYZ0189-_.~%", min_size=8, max_size=60)
BASE64 = st.text("abcXYZ0189+/=", min_size=8, max_size=90)
PLACES: dict[str, tuple[str, str]] = {
    "a bearer token": ("Authorization: Bearer ", ""),
    "a bearer token in small letters": ("authorization: bearer ", ", retry"),
    "an api key's header": ("api-key: ", ""),
    "an api key in JSON": ('{"api_key": "', '", "model": "m"}'),
    "an api key in a dict": ("{'apikey': '", "'}"),
    "an api key in a URL": ("https://mine.azure.com/x?api-key=", "&v=1"),
    "a SAS signature": ("https://mine.blob.core.windows.net/c?sv=2024&sig=", "&se=2030"),
    "a SAS token": ("SharedAccessSignature sr=hub&sig=", "&se=1"),
    "an access token": ('"access_token":"', '"'),
    "a client's secret": ("client_secret=", "&grant_type=x"),
}
KEYS: dict[str, tuple[str, str]] = {
    "an account key": ("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=", ";EndpointSuffix=core"),
    "a shared access key": ("Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=", ";EntityPath=p"),
    "an api key in base64": ("api-key: ", ""),
}
NOT_STRUCK: dict[str, tuple[str, str]] = {
    "JSON within JSON": ('{\\"api_key\\": \\"', '\\"}'),
    "a subscription key": ("Ocp-Apim-Subscription-Key: ", ""),
    "a key in words": ("Incorrect API key provided: ", ""),
}
AROUND = st.text(st.characters(categories=["L", "N", "P", "Zs"], include_characters="\n"), max_size=30)


def assert_struck(place: tuple[str, str], secret: str, before: str, after: str) -> None:
    head, tail = place
    found = redact(f"{before} {head}{secret}{tail} {after}")
    assert secret not in found.removeprefix(before).removesuffix(after)
    assert "[…]" in found
    assert found.startswith(before)


@pytest.mark.parametrize("place", PLACES)
@unhurried
@given(secret=URL_SAFE, before=AROUND, after=AROUND)
def test_a_secret_is_struck_out_wherever_it_is(place: str, secret: str, before: str, after: str) -> None:
    assert_struck(PLACES[place], secret, before, after)


@pytest.mark.parametrize("place", KEYS)
@unhurried
@given(secret=BASE64, before=AROUND, after=AROUND)
def test_a_key_is_struck_out_to_its_last_sign(place: str, secret: str, before: str, after: str) -> None:
    assert_struck(KEYS[place], secret, before, after)


@pytest.mark.parametrize("place", NOT_STRUCK)
def test_a_secret_in_a_place_less_usual_is_struck_out_too(place: str) -> None:
    assert_struck(NOT_STRUCK[place], "0123456789abcdef", "x", "y")


@pytest.mark.parametrize(
    "text",
    ["The signature of the file is wrong.", "bearer", "Design: sign in again", "401 invalid_token: it has expired",
     "model gpt-4.1-mini, file-0123456789abcdef", "significant = yes"],
)  # fmt: skip
def test_words_that_hold_no_secret_stay(text: str) -> None:
    assert redact(text) == text


@unhurried
@given(URL_SAFE, st.integers(200, 320))
def test_a_secret_at_the_cut_of_a_long_text_is_struck_out_too(secret: str, padding: int) -> None:
    body = {"error": {"code": "Bad", "message": "x " * (padding // 2) + f"Bearer {secret}"}}
    answer = httpx2.Response(400, json=body, request=httpx2.Request("GET", "https://example.org"))
    error = openai.BadRequestError("x", response=answer, body=body["error"])
    reported = str(faults.error_for(faults.classify(error), "asking", "https://example.org"))
    assert secret not in reported
    assert secret[:8] not in reported
