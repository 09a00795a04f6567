"""Exports sent to object stores by their own clients, over HTTP; what is there is read by the clouds' SDKs."""

from pathlib import Path

import pytest

from runner import stores
from runner.errors import AccessError, RequestError, ServiceError
from runner.exporting import destinations
from runner.record import layout
from tests.object_stores import GONE, PLACE, ObjectStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an export's folder, with one folder in it; a file is larger than what is sent at once."""
    (tmp_path / "export" / "tokenizer").mkdir(parents=True)
    for name in (layout.EXPORT, "config.json", "tokenizer/vocabulary.txt"):
        (tmp_path / "export" / name).write_text(f"{name}, grüße", "utf-8")
    (tmp_path / "export" / "model.safetensors").write_bytes(bytes(range(256)) * 25_000)
    return tmp_path / "export"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def push(folder: Path, address: str) -> str:
    return destinations.find(address).push(folder, address)


def test_an_export_in_an_object_store_has_the_files_of_its_folder_byte_by_byte(
    open_store: ObjectStore, folder: Path
) -> None:
    assert push(folder, open_store.at("whole/")) == open_store.at("whole/")
    assert open_store.files("whole/") == {f"whole/{name}": content for name, content in contents(folder).items()}


def test_a_push_over_another_one_replaces_its_files_and_keeps_those_that_it_does_not_have(
    open_store: ObjectStore, folder: Path
) -> None:
    push(folder, open_store.at("again"))
    (folder / "config.json").write_text("another one")
    (folder / "tokenizer/vocabulary.txt").rename(folder / "merges.txt")
    push(folder, open_store.at("again"))
    kept = open_store.files("again/")
    assert kept.pop("again/tokenizer/vocabulary.txt")
    assert kept == {f"again/{name}": content for name, content in contents(folder).items()}


def test_a_push_that_breaks_off_leaves_no_proof_of_the_one_before(open_store: ObjectStore, folder: Path) -> None:
    push(folder, open_store.at("broken"))
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/proc/self/mem")  # a file that cannot be read, by root either
    with pytest.raises((ServiceError, AccessError)):
        push(folder, open_store.at("broken"))
    assert f"broken/{layout.EXPORT}" not in open_store.files("broken/")


def test_a_wrong_key_of_an_object_store_is_an_access_error_that_says_where_keys_are_looked_for(
    open_store: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store.enter("wrong", monkeypatch)
    with pytest.raises(AccessError, match=r"does not let us in: .*; check the credential in the env") as caught:
        push(folder, open_store.at("unsent"))
    named = {"s3": "AWS_SECRET_ACCESS_KEY", "abfs": "AZURE_STORAGE_CONNECTION_STRING"}
    assert named[open_store.scheme] in str(caught.value)
    assert open_store.shows_no_key(str(caught.value))
    assert open_store.files("unsent") == {}


def test_an_environment_without_a_key_is_an_access_error(
    open_store: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in open_store.right:
        if not name.endswith(("URL", "REGION")):
            monkeypatch.delenv(name)
    # Else s3fs asks the machine that it might be on, and looks into the developer's own settings.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(AccessError, match="the store does not let us in: "):
        push(folder, open_store.at("unsent"))


def test_a_bucket_or_container_that_is_missing_is_a_service_error_and_none_is_made(
    open_store: ObjectStore, folder: Path
) -> None:
    with pytest.raises(ServiceError, match=r"(bucket does not exist|No such container).*; check the address"):
        push(folder, f"{open_store.scheme}://mistyped/models")
    assert open_store.places() == [PLACE]


@GONE
def test_a_store_that_does_not_answer_is_a_service_error_without_its_key(
    object_store: ObjectStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    object_store.enter("gone", monkeypatch)
    with pytest.raises(ServiceError, match=r"(Could not|Cannot) connect") as caught:
        push(folder, object_store.at("gone"))
    assert object_store.shows_no_key(str(caught.value))


FORMS = ["abfs://{}@runnertests.dfs.core.windows.net", "abfss://{}@runnertests.dfs.core.windows.net",
         "abfs://{}@runnertests.blob.core.windows.net", "abfs://runnertests.dfs.core.windows.net/{}",
         "az://{}"]  # fmt: skip


@pytest.mark.parametrize("object_store", ["azure"], indirect=True)
def test_each_way_to_write_a_container_and_its_account_is_the_same_place(open_store: ObjectStore, folder: Path) -> None:
    for number, form in enumerate(FORMS):
        push(folder, f"{form.format(PLACE)}/forms/{number}")
        assert len(open_store.files(f"forms/{number}/")) == len(contents(folder)), form


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("abfs://models@runnertests/x", "the account is not taken from @runnertests; write @ACCOUNT.dfs.core"),
        ("abfs://models@runnertests.dfs.core.chinacloudapi.cn/x", "the account is not taken from @"),
        (
            "abfs://models@another.dfs.core.windows.net/x",
            "_STRING is preferred .* not of its account another",
        ),
        ("abfs://models@runner.dfs.core.windows.net/x", "not of its account runner"),
    ],
)
def test_an_account_to_which_the_client_would_not_go_is_refused(
    address: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=runnertests;AccountKey=c2VjcmV0")
    with pytest.raises(RequestError, match=sentence) as caught:
        destinations.find(address)
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "abfs://models/x?sig=KEPT",
        "s3://AKIA:KEPT@bucket/x",
        "https://me:KEPT@host/x",
        "ftp://host/x?X-Amz-Signature=KEPT",
    ],
)
def test_an_address_to_push_to_that_holds_a_credential_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(RequestError, match=r"push: .*: the address holds a credential") as caught:
        destinations.find(address)
    assert "KEPT" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        'Could not connect to the endpoint URL: "http://me:KEPT@127.0.0.1:9/bucket"',
        "no host in DefaultEndpointsProtocol=https;AccountName=a;AccountKey=KEPT;EndpointSuffix=core.windows.net",
        "https://a.blob.core.windows.net/c/x?sv=2026&sig=KEPT did not answer",
    ],
)
def test_what_a_client_says_is_shown_without_the_secret_in_it(said: str) -> None:
    shown = stores.reason(OSError(said))
    assert "KEPT" not in shown
    assert "[…]" in shown


@pytest.mark.parametrize("inside", ["", "/copy", "/tokenizer/.."])
def test_an_export_that_is_pushed_into_itself_is_refused_and_left_as_it_is(inside: str, folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(RequestError, match=r"push: got file://.*, which is the export itself or in it; name another"):
        push(folder, f"file://{folder}{inside}")
    assert contents(folder) == before


def test_a_folder_of_this_machine_is_pushed_to_by_its_whole_path_alone() -> None:
    with pytest.raises(RequestError, match=r"push: got file://tmp/x, which names no folder; allowed: .*file:///FOLDER"):
        destinations.find("file://tmp/x")
