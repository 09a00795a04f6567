"""`https:`, `s3:`, `abfs:` and other addresses that fsspec reads: downloaded once into the user's cache.

A copy is kept by what the server says of the file (its ETag, time, size), so that a file which has changed is fetched
again, and an unchanged one never. Where the server cannot be reached, the last copy is taken.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from runner import cache, stores
from runner.data.sources import Source
from runner.errors import DataError

_VERSION = re.compile(
    r"etag|.*modified|mtime|created|content_md5|md5hash|crc32c|versionid|generation|size", re.IGNORECASE
)
"""What servers say of a file that changes with its content."""


class _Copy(msgspec.Struct, frozen=True):
    """A file as it is called, and where in the cache its copy is."""

    name: str
    entry: str
    file: str


class Address(Source):
    """Files at an address, of which `*` stands for any part of a name where the server lists its files."""

    schemes = ("https", "http", *stores.CLIENTS)

    def pinned(self, name: str) -> str:
        """Return the name, after fetching what has changed since the last time."""
        self._ask(name)
        return name

    def files(self, name: str) -> Sequence[tuple[str, Path]]:
        """Return the file at an address, or all that match a pattern, sorted; the server is asked if none is here."""
        return _noted(name) or self._ask(name)

    def _ask(self, name: str) -> Sequence[tuple[str, Path]]:
        if fault := stores.fault_in(name):
            raise DataError(f"{fault}.")
        try:
            copies = _fetched(name, _folder())
        except DataError:
            raise
        except Exception as error:  # fsspec's file systems raise their libraries' own
            if _is_answer(error) or not _noted(name):
                raise _refused(name, error) from None
        else:
            _note(name).write_bytes(msgspec.json.encode(copies))
        return _noted(name)


def _folder() -> Path:
    folder = cache.user_folder() / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _note(name: str) -> Path:
    """Return the file that says which copies were made of an address."""
    return _folder() / f"{sha256(name.encode()).hexdigest()}.json"


def _noted(name: str) -> Sequence[tuple[str, Path]]:
    """Return the copies made of an address, none if one of them is gone."""
    note = _note(name)
    copies = msgspec.json.decode(note.read_bytes(), type=list[_Copy]) if note.is_file() else []
    found = [(copy.name, _folder() / copy.entry / copy.file) for copy in copies]
    return found if all(path.is_file() for _, path in found) else []


def _fetched(name: str, folder: Path) -> list[_Copy]:
    """Return the files of an address, those that are not here yet after fetching them."""
    try:
        files, path = stores.reach(name)
    except ImportError as error:
        raise DataError(
            f"{name}: an address is read by fsspec, for s3: with s3fs and for abfs: with adlfs ({error}); "
            "pip install 'runner[sources]', or the package named."
        ) from None
    paths = sorted(files.glob(path)) if "*" in path else [path]
    if not paths:
        raise DataError(f"{name}: no file there matches; check the address.")
    copies = []
    for each in paths:
        said: Mapping[str, Any] = files.info(each)
        called = name if each == path else str(files.unstrip_protocol(each))
        # A file that has changed is another entry: a run under way keeps the one that it has mapped.
        version = sorted((key, str(value)) for key, value in said.items() if _VERSION.fullmatch(key))
        entry = sha256(msgspec.json.encode([called, version])).hexdigest()
        # Its last part stays, as the name of a table ends with `.csv`.
        file = re.sub(r"[^\w.-]", "_", Path(urlsplit(each).path).name)[-100:] or "data"

        def write(draft: Path, each: str = each, file: str = file, size: int | None = said.get("size")) -> None:
            files.get_file(each, str(draft / file))
            # A connection that breaks off may look like the end of the file.
            if size is not None and (found := (draft / file).stat().st_size) != size:
                raise OSError(f"{found} of {size} bytes came")

        cache.entry(folder, entry, write)
        copies.append(_Copy(called, entry, file))
    return copies


def _is_answer(error: Exception) -> bool:
    """Say whether a server has answered that it does not give a file; else it was not reached."""
    # fsspec's HTTP says of both that there is no such file, and keeps as the cause what has happened.
    missing = isinstance(error, FileNotFoundError) and not isinstance(error.__cause__, OSError)
    return missing or stores.is_refusal(error)


def _refused(name: str, error: Exception) -> DataError:
    error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return DataError(
        f"{name}: cannot be fetched ({stores.reason(error)}); check the address, and the credential in the environment."
    )


SOURCE = Address()
