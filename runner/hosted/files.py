"""Files at the service: each content once, known by its hash in the file's name, whoever uploaded it.

The service reports no hash of a file; so the name carries it, and a file of that name and size is that content.
"""

from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from openai import NotFoundError

from runner.data.rows import Row
from runner.hosted import faults
from runner.hosted.connection import UPLOAD_SECONDS, Asking, Connection
from runner.hosted.lock import Claim
from runner.record.events import Created, Event, Intent, Note, Progress, Wait

GONE = {"deleted", "deleting"}


@dataclass(frozen=True)
class Content:
    """The bytes of a split as the service takes them, written to a file here."""

    path: Path
    sha256: str
    bytes: int

    @property
    def name(self) -> str:
        """What the file is called at the service."""
        return f"runner-{self.sha256[:40]}.jsonl"


def encode(row: Row) -> bytes:
    """Return a row as the service takes it."""
    return msgspec.json.encode(row.wire())


def write(rows: Iterable[Row], path: Path) -> Content:
    """Write rows as JSON Lines and return what was written."""
    digest, size = sha256(), 0
    with path.open("wb") as file:
        for row in rows:
            line = encode(row) + b"\n"
            digest.update(line)
            size += file.write(line)
    return Content(path, digest.hexdigest(), size)


def ensure(service: Connection, content: Content, intended: bool) -> Generator[Event, None, str]:
    """Return the id of the file with some content at the service, uploaded if there is none yet.

    `intended` says that this run was about to upload it before, so that what is found there is its own.
    Raises `DataError` where the service has refused that content.
    """
    # Two trials of a sweep may want the same file at the same time: one of them uploads it.
    claim = Claim(f"file-{content.sha256[:40]}")
    yield from claim.take()
    try:
        found = yield from find(service, content)
        if found is not None and not intended:
            yield Note(f"the service has {content.path.name} already: {found.id}")
        else:
            # Journalled before it is sent: after a kill what is found under the name is known to be this run's.
            yield Intent(f"file {content.name}", {"bytes": content.bytes})
            sending = f"uploading {content.path.name}"
            found = found or (
                yield from service.create(sending, lambda: _send(service, content), lambda: find(service, content))
            )
            yield Created("file", found.id, {"name": content.name, "bytes": content.bytes})
    finally:
        claim.drop()
    yield from _processed(service, content, found.id)
    return str(found.id)


def exist(service: Connection, ids: Mapping[str, str]) -> Asking[bool]:
    """Say whether files are at the service still."""

    def there(file_id: str) -> bool:
        with suppress(NotFoundError):
            return service.openai.files.retrieve(file_id).status not in GONE
        return False

    for file_id in ids.values():
        if not (yield from service.ask(f"looking at the file {file_id}", partial(there, file_id))):
            return False
    return True


def find(service: Connection, content: Content) -> Asking[Any]:
    """Return the newest file of some content at the service, or None."""

    def same(file: Any) -> bool:
        # The name holds the content's hash; the size shows a file that was cut off while it was uploaded.
        return bool(file.filename == content.name and file.bytes == content.bytes and file.status not in GONE)

    def page(**options: Any) -> Any:
        return service.openai.files.list(purpose="fine-tune", order="desc", **options)

    files = yield from service.collect("listing the service's files", page, same)
    return next((file for file in files if same(file)), None)


def _send(service: Connection, content: Content) -> Any:
    with content.path.open("rb") as file:
        return service.openai.files.create(file=(content.name, file), purpose="fine-tune", timeout=UPLOAD_SECONDS)


def _processed(service: Connection, content: Content, file_id: str) -> Generator[Event, None, None]:
    """Wait until the service has read a file; its SDK's own wait takes an error for an end as good as another."""
    what = f"{content.path.name} ({file_id})"
    while True:
        file = yield from service.ask(f"looking at {what}", lambda: service.openai.files.retrieve(file_id))
        if file.status == "processed":
            return
        if file.status == "error" or file.status in GONE:
            raise faults.refused_data(str(file.status_details or ""), what)
        yield Progress("upload", 0, 0, text=f"the service reads {content.path.name}: {file.status}")
        # The service takes seconds for a small file and minutes for a large one, however rarely jobs are polled.
        yield Wait(min(service.polling.every, 5.0))


def delete(service: Connection, file_id: str) -> Generator[Event, None, None]:
    """Remove a file from the service; one that is gone already is as good."""

    def remove() -> None:
        with suppress(NotFoundError):
            service.openai.files.delete(file_id)

    yield from service.ask(f"removing the file {file_id}", remove)
