"""Object stores on this machine over real HTTP: Azure's by Azurite, Microsoft's emulator, S3's by moto's server.

What is in them is put there and looked at by each cloud's own SDK; the runner reaches them by s3fs and adlfs.
CONTRIBUTING.md says how to have them.
"""

import base64
import os
import re
import secrets
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

import pytest

from tests import waiting

PLACE = "models"
"""The bucket or container that there is."""
SECRET = "secret-token-"
"""How keys begin, so that tests/conftest.py finds them in any file that a test writes."""
# Azure's client asks a server that is gone again for 84 s, whatever the environment says.
GONE = pytest.mark.parametrize(
    "object_store", ["s3", pytest.param("azure", marks=pytest.mark.exhaustive)], indirect=True
)


@dataclass(frozen=True)
class ObjectStore:
    """A server with one bucket or container, as a user's environment names it, and as its SDK sees it."""

    scheme: str
    right: Mapping[str, str]
    """The variables of a user who may do all there."""
    wrong: Mapping[str, str]
    """Those of one whose key is another one."""
    gone: Mapping[str, str]
    """Those of one whose server does not answer any more."""
    keys: tuple[str, ...]
    """What is in no message."""
    put: Callable[[str, bytes], object]
    """Write a file, by its name in `PLACE`."""
    files: Callable[[str], dict[str, bytes]]
    """Return the files whose names begin so."""
    places: Callable[[], list[str]]
    """Return the names of all buckets or containers."""

    def at(self, name: str) -> str:
        """Return the address of a file."""
        return f"{self.scheme}://{PLACE}/{name}"

    def enter(self, which: Literal["right", "wrong", "gone"], monkeypatch: pytest.MonkeyPatch) -> None:
        """Put a user's variables into this process's environment."""
        for name, value in getattr(self, which).items():
            monkeypatch.setenv(name, value)

    def shows_no_key(self, text: str) -> bool:
        """Say whether a text holds none of the keys, right or wrong."""
        return not any(key in text for key in self.keys)


@contextmanager
def azure() -> Iterator[ObjectStore]:
    """Start Azurite; skip where it is not installed."""
    program = Path(__file__).parents[1] / ".venv/azurite/node_modules/.bin/azurite-blob"
    command = str(program) if program.exists() else shutil.which("azurite-blob")
    if not find_spec("adlfs") or not command:
        pytest.skip("no adlfs or no Azurite: `make test` installs them, where npm is")
    from azure.storage.blob import BlobServiceClient

    key, other = (base64.b64encode(f"{SECRET}{secrets.token_hex(16)}".encode()).decode() for _ in range(2))
    line = [command, "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--blobPort", "0"]
    accounts = {"AZURITE_ACCOUNTS": f"runnertests:{key}"}
    with _started([*line, "--silent"], r"listens on http://127.0.0.1:(\d+)", accounts) as port:

        def variables(key: str, port: str = port) -> dict[str, str]:
            there = f"BlobEndpoint=http://127.0.0.1:{port}/runnertests"
            named = f"DefaultEndpointsProtocol=http;AccountName=runnertests;AccountKey={key};{there};"
            return {"AZURE_STORAGE_CONNECTION_STRING": named}

        with BlobServiceClient.from_connection_string(*variables(key).values()) as client:
            place = client.create_container(PLACE)
            yield ObjectStore(
                "abfs", variables(key), variables(other), variables(key, "9"), (key, other),
                put=lambda name, content: place.upload_blob(name, content, overwrite=True),
                files=lambda start: {
                    each: place.download_blob(each).readall() for each in place.list_blob_names(name_starts_with=start)
                },
                places=lambda: [each.name for each in client.list_containers()],
            )  # fmt: skip


@contextmanager
def s3() -> Iterator[ObjectStore]:
    """Start moto's server; skip where it or s3fs is not installed."""
    if not find_spec("s3fs") or not find_spec("aiobotocore") or not find_spec("moto"):
        pytest.skip("no s3fs or no moto: both are in runner[dev]")
    import boto3

    line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with _started(line, r"Running on http://127.0.0.1:(\d+)") as port:
        where = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"}
        # Until keys are asked for, any will do.
        iam = boto3.client("iam", **where, aws_access_key_id="any", aws_secret_access_key="any")
        iam.create_user(UserName="tests")
        policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="tests", PolicyName="all", PolicyDocument=policy)
        made = iam.create_access_key(UserName="tests")["AccessKey"]
        ask = urllib.request.Request(
            f"{where['endpoint_url']}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(ask).close()

        identity, key, other = made["AccessKeyId"], made["SecretAccessKey"], f"{SECRET}{secrets.token_hex(16)}"

        def variables(key: str, port: str = port) -> dict[str, str]:
            return {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": identity, "AWS_SECRET_ACCESS_KEY": key, "AWS_MAX_ATTEMPTS": "1",
            }  # fmt: skip

        client = boto3.client("s3", **where, aws_access_key_id=identity, aws_secret_access_key=key)
        client.create_bucket(Bucket=PLACE)

        def files(start: str) -> dict[str, bytes]:
            found = client.list_objects_v2(Bucket=PLACE, Prefix=start).get("Contents", [])
            return {each["Key"]: client.get_object(Bucket=PLACE, Key=each["Key"])["Body"].read() for each in found}

        yield ObjectStore(
            "s3", variables(key), variables(other), variables(key, "9"), (key, other),
            put=lambda name, content: client.put_object(Bucket=PLACE, Key=name, Body=content), files=files,
            places=lambda: [each["Name"] for each in client.list_buckets()["Buckets"]],
        )  # fmt: skip
        client.close()


@contextmanager
def _started(line: list[str], says: str, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a server, which says the port that it has taken; it is gone at the end of the block."""
    with TemporaryFile("w+") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, env=os.environ | dict(variables or {}))

        def port() -> str | None:
            log.seek(0)
            found = re.search(says, log.read())
            return found and found[1]

        try:
            waiting.until(port, f"port of {Path(line[0]).name}", process=process)
            yield port() or ""
        finally:
            process.kill()
            process.wait(waiting.SECONDS)
