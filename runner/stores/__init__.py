"""Addresses that fsspec reaches (`s3:`, `abfs:`, `gs:`, `https:`, `file:`), each by the official client of its store.

Data is read from them (runner/data/sources/address.py) and exports are sent to them (runner/exporting/destinations/).
What is wrong is said without a credential: addresses and messages are shown, logged and kept.
"""

import logging
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, urlsplit

from runner.data.quoting import shown
from runner.hosted.wording import line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CLIENTS = {"s3": "s3fs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "gs": "gcsfs", "gcs": "gcsfs"}
"""The package that reaches a store, by scheme."""
_CREDENTIALS = {
    "s3fs": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "adlfs": "AZURE_STORAGE_CONNECTION_STRING, "
    "or AZURE_STORAGE_ACCOUNT_NAME with `az login` or AZURE_STORAGE_ACCOUNT_KEY",
    "gcsfs": "GOOGLE_APPLICATION_CREDENTIALS",
}
"""Where each client looks for a credential first."""

_SECRET = re.compile(r"sig|.*signature|.*token|.*key|.*secret|.*password|.*credential", re.IGNORECASE)
_AZURE_HOST = re.compile(r"(?P<account>[^.]+)\.(?:dfs|blob)\.core\.windows\.net")
"""The hosts of which adlfs takes the account (`_get_kwargs_from_urls`); of any other it takes none, without a word."""
_NO_CREDENTIAL = re.compile(r"Credential|Authentication|ProfileNotFound|SSO")
"""How botocore, azure-core and google-auth call what they raise where they find no credential that they can use."""


def fault_in(address: str) -> str | None:
    """Return what is wrong with an address before anyone is asked, as a sentence without its end; None if nothing is.

    It may hold a credential, which lets in whoever reads it, or an account of Azure that its client would not go to.
    """
    parts = urlsplit(address)
    keys = [key for key, _ in parse_qsl(parts.query, keep_blank_values=True) if _SECRET.fullmatch(key)]
    if keys or parts.password or (parts.username and parts.scheme.startswith("http")):
        found = f"the query has `{shown(keys[0])}`" if keys else "it has a user before @"
        return (
            f"{parts.scheme}://{parts.hostname}{parts.path}: the address holds a credential ({found}), and is logged "
            "and kept; leave it out and give the credential in the environment, as the cloud's own tools take it"
        )
    fault = _account_fault(parts) if CLIENTS.get(parts.scheme) == "adlfs" else None
    return f"{address}: {fault}" if fault else None


def reach(address: str) -> tuple["AbstractFileSystem", str]:
    """Return the file system of an address, and the path in it; what it finds out is asked for, never remembered.

    Raises `ImportError` where its client is not installed, and whatever a client raises that finds no credential.
    """
    from fsspec.core import url_to_fs

    # azure-identity writes each credential that it tried to the terminal; what it raises says so, too.
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    # fsspec keeps a file system, with its lists of files and its credential, as long as the process lives.
    files, path = url_to_fs(address, skip_instance_cache=True)
    return files, str(path)


def is_refusal(error: Exception) -> bool:
    """Say whether a store has answered that it does not let us in."""
    # adlfs passes on azure-core's errors, s3fs makes Python's of botocore's.
    return isinstance(error, PermissionError) or getattr(error, "status_code", None) in (401, 403)


def lacks_credential(error: Exception) -> bool:
    """Say whether a client found no credential that it can use, so that no store was asked."""
    names = (each.__name__ for each in type(error).__mro__)
    # adlfs raises a bare ValueError for a connection string that is malformed, or none.
    return any(map(_NO_CREDENTIAL.search, names)) or str(error).startswith("unable to connect to account")


def credential_of(address: str) -> str:
    """Return where the credential for an address is to be, as part of a sentence."""
    variables = _CREDENTIALS.get(CLIENTS.get(urlsplit(address).scheme, ""))
    return f"the credential in the environment: {variables}" if variables else "who may write there"


def reason(error: Exception) -> str:
    """Return what a client says as part of a sentence: its first line, without secrets."""
    # s3fs and fsspec's HTTP say of a file that is not there its path alone.
    if isinstance(error, FileNotFoundError) and error.strerror is None and error.__cause__ is None:
        return "no such file"
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return shown(re.sub(r"://[^/\s@]+@", "://[…]@", line(first)), 300)


def _account_fault(parts: SplitResult) -> str | None:
    """Return what is wrong where an address of Azure names an account to which adlfs would not go."""
    host = parts.hostname or ""
    found = _AZURE_HOST.fullmatch(host)
    if not found:
        return parts.username and (
            f"the account is not taken from @{host}; write @ACCOUNT.dfs.core.windows.net, or leave @ and what follows "
            "out and name the account in the environment"
        )
    account, connection = found["account"], os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    # adlfs prefers a connection string, whatever account the address names.
    if connection and not re.search(rf"(?i)(?<![a-z0-9]){re.escape(account)}(?![a-z0-9])", connection):
        return (
            f"AZURE_STORAGE_CONNECTION_STRING is preferred to the address, and is not of its account {account}; unset "
            "it, or write abfs://CONTAINER/PATH"
        )
    return None
