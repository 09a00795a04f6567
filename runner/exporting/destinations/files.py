"""`push=s3://…`, `push=abfs://…`, `push=gs://…`: a folder of a store, by fsspec and the store's own client."""

from pathlib import Path
from typing import ClassVar

from runner import stores
from runner.errors import AccessError, RequestError, ServiceError
from runner.exporting.destinations import Destination
from runner.record import layout


class Store(Destination):
    """A store that fsspec knows; the credentials are those its client finds by itself."""

    schemes: ClassVar[tuple[str, ...]] = (*stores.CLIENTS, "file")
    form = (
        "s3://BUCKET/PATH, abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, abfs://CONTAINER/PATH, "
        "gs://BUCKET/PATH, file:///FOLDER"
    )

    def demand(self, address: str) -> None:
        """Raise `RequestError` where the store's client is not installed, or the address names no path."""
        scheme, _, rest = address.partition("://")
        # Of file://tmp/x fsspec makes a folder tmp here, though it looks like one of the machine's.
        if "/" not in rest.rstrip("/") or (scheme == "file" and not rest.startswith("/")):
            raise RequestError(f"push: got {address}, which names no folder; allowed: {self.form}.")
        try:
            import fsspec

            # Before the export is made: a package that is missing would be found after minutes.
            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            client = stores.CLIENTS.get(scheme, "fsspec")
            raise RequestError(f"push: {scheme}:// needs {client}; pip install {client}.") from error

    def push(self, folder: Path, address: str) -> str:
        """Send each file of a folder; `export.json` comes last, so that a reader never takes a part for the whole.

        Raises `RequestError` where the place is the folder itself, whose proof would be deleted, or in it.
        """
        if address.startswith("file:") and Path(stores.reach(address)[1]).resolve().is_relative_to(folder.resolve()):
            raise RequestError(f"push: got {address}, which is the export itself or in it; name another folder.")
        try:
            _send(folder, address)
        except Exception as error:  # each client has errors of its own, with no class in common
            said = stores.reason(error)
            if stores.is_refusal(error) or stores.lacks_credential(error):
                kept = stores.credential_of(address)
                raise AccessError(f"push: {address}: the store does not let us in: {said}; check {kept}.") from error
            raise ServiceError(
                f"push: {address}: {said}; check the address, or give the same command again."
            ) from error
        return address


def _send(folder: Path, address: str) -> None:
    store, place = stores.reach(address)

    def there(path: Path) -> str:
        return f"{place.rstrip('/')}/{path.relative_to(folder).as_posix()}"

    # That of an earlier push would call what is half replaced whole.
    if store.exists(there(folder / layout.EXPORT)):
        store.rm_file(there(folder / layout.EXPORT))
    files = [each for each in folder.rglob("*") if each.is_file()]
    for each in sorted(files, key=lambda each: each.name == layout.EXPORT):
        # Only here: of s3fs and gcsfs it would make the bucket, of a name that was mistyped, too.
        if address.startswith("file:"):
            store.makedirs(there(each.parent), exist_ok=True)
        store.put_file(str(each), there(each))


DESTINATION = Store()
