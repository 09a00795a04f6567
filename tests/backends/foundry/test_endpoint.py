"""Where the service is: YAML before the environment, what is missing named, nothing of a wrong URL taken."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.backends.foundry import endpoint
from runner.backends.foundry.keys import Azure
from runner.errors import AccessError
from runner.terminal import cli
from tests.data.samples import unhurried

ENDPOINT = "https://mine.services.ai.azure.com/api/projects/p"
WHOLE = {
    "AZURE_AI_PROJECT_ENDPOINT": ENDPOINT,
    "AZURE_SUBSCRIPTION_ID": "0000-1111",
    "AZURE_RESOURCE_GROUP": "group",
}


def test_the_names_that_microsofts_samples_read_are_taken_after_the_runners_own() -> None:
    theirs = {
        "FOUNDRY_PROJECT_ENDPOINT": ENDPOINT,
        "AZURE_AI_PROJECTS_AZURE_SUBSCRIPTION_ID": "0000-1111",
        "AZURE_AI_PROJECTS_AZURE_RESOURCE_GROUP": "group",
        "AZURE_AI_PROJECTS_AZURE_AOAI_ACCOUNT": "other",
    }
    found = endpoint.control_plane(Azure(), theirs)
    assert (found.subscription, found.resource_group, found.account) == ("0000-1111", "group", "other")
    assert endpoint.find_endpoint(Azure(), theirs) == ENDPOINT
    assert endpoint.find_endpoint(Azure(), theirs | {"AZURE_AI_PROJECT_ENDPOINT": f"{ENDPOINT}2"}) == f"{ENDPOINT}2"


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_the_endpoint_has_no_slash_at_its_end(slashes: str) -> None:
    assert endpoint.find_endpoint(Azure(endpoint=ENDPOINT + slashes), {}) == ENDPOINT


def test_a_key_goes_before_the_variable() -> None:
    other = ENDPOINT.replace("mine", "other")
    assert endpoint.find_endpoint(Azure(endpoint=other), WHOLE) == other
    assert endpoint.find_endpoint(Azure(), WHOLE) == ENDPOINT
    found = endpoint.control_plane(Azure(subscription="s", resource_group="g", account="a"), WHOLE)
    assert (found.subscription, found.resource_group, found.account) == ("s", "g", "a")


def test_an_emulator_on_this_machine_may_be_reached_without_encryption() -> None:
    for host in ("127.0.0.1:8080", "localhost:1"):
        assert endpoint.find_endpoint(Azure(endpoint=f"http://{host}/api/projects/p"), {}).startswith("http://")


@pytest.mark.parametrize(
    "wrong",
    ["http://mine.services.ai.azure.com/api/projects/p", "http://127.0.0.1.example.org/api/projects/p",
     "https://mine.services.ai.azure.com", "https://mine.services.ai.azure.com/", "https://mine.openai.azure.com/openai",
     "https://mine.services.ai.azure.com/api/projects/", "mine.services.ai.azure.com/api/projects/p", "p", "ftp://x/api/projects/p"],
)  # fmt: skip
def test_a_url_of_no_project_is_refused_with_what_it_should_be(wrong: str) -> None:
    with pytest.raises(AccessError) as error:
        endpoint.find_endpoint(Azure(endpoint=wrong), {})
    assert str(error.value).startswith(f"backend.azure.endpoint: got {wrong.rstrip('/')}; allowed: https://RESOURCE.")
    assert error.value.exit_code == 2


def test_a_url_with_a_bracket_too_many_is_refused_too() -> None:
    with pytest.raises(AccessError):
        endpoint.find_endpoint(Azure(endpoint="https://[mine/api/projects/p"), {})


@unhurried
@given(st.text(st.characters(exclude_characters="[]")))
def test_any_text_is_an_endpoint_or_refused_in_a_sentence(text: str) -> None:
    try:
        found = endpoint.find_endpoint(Azure(endpoint=text), {})
    except AccessError:
        return
    assert found.startswith(("https://", "http://127.0.0.1", "http://localhost"))


@pytest.mark.parametrize("missing", sorted(WHOLE))
def test_a_variable_that_is_missing_is_named_with_its_key_and_where_to_find_it(missing: str) -> None:
    key = next(key for key, (names, _) in endpoint.VARIABLES.items() if missing in names)
    for environment in (WHOLE | {missing: ""}, {name: value for name, value in WHOLE.items() if name != missing}):
        with pytest.raises(AccessError, match=rf"^{missing}: not set; .*backend\.azure\.{key}; ") as error:
            endpoint.control_plane(Azure(), environment)
        assert endpoint.VARIABLES[key][1] in str(error.value)
        assert "\n" not in str(error.value)


def test_the_account_is_read_off_the_endpoint_unless_it_is_set() -> None:
    assert endpoint.control_plane(Azure(), WHOLE).account == "mine"
    assert endpoint.control_plane(Azure(), WHOLE | {"AZURE_AI_ACCOUNT": "other"}).account == "other"
    elsewhere = WHOLE | {"AZURE_AI_PROJECT_ENDPOINT": "https://ai.example.org/api/projects/p"}
    with pytest.raises(AccessError, match=r"^AZURE_AI_ACCOUNT: not set"):
        endpoint.control_plane(Azure(), elsewhere)


def test_the_names_of_microsofts_samples_are_known_too() -> None:
    environment = {
        "AZURE_AI_PROJECT_ENDPOINT": "https://ai.example.org/api/projects/p",
        "AZURE_AI_PROJECTS_AZURE_SUBSCRIPTION_ID": "s",
        "AZURE_AI_PROJECTS_AZURE_RESOURCE_GROUP": "g",
        "AZURE_AI_PROJECTS_AZURE_AOAI_ACCOUNT": "a",
    }
    assert endpoint.control_plane(Azure(), environment) == endpoint.ControlPlane(
        "s", "g", "a", endpoint.RESOURCE_MANAGER
    )


def test_deployments_are_made_at_azures_resource_manager_unless_a_variable_says_otherwise() -> None:
    assert endpoint.control_plane(Azure(), WHOLE).url == "https://management.azure.com"
    government = WHOLE | {"AZURE_RESOURCE_MANAGER_ENDPOINT": "https://management.usgovcloudapi.net/"}
    assert endpoint.control_plane(Azure(), government).url == "https://management.usgovcloudapi.net"


def test_variables_come_from_the_nearest_dotenv_and_those_already_set_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"AZURE_AI_PROJECT_ENDPOINT={ENDPOINT}\nAZURE_RESOURCE_GROUP='from the file'\n")
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", "set before")
    monkeypatch.setenv("AZURE_AI_PROJECT_ENDPOINT", "")  # so that it is put back, whatever is read
    monkeypatch.delenv("AZURE_AI_PROJECT_ENDPOINT")
    cli.read_dotenv()
    assert endpoint.find_endpoint(Azure()) == ENDPOINT
    assert os.environ["AZURE_RESOURCE_GROUP"] == "set before"
