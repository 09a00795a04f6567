"""`push=s3://…`, `push=abfs://…`, `push=gs://…`: a folder of a store, by fsspec and the store's own client."""

from pathlib import Path
from typing import ClassVar

from runner.errors import AccessError, RequestError, ServiceError
from runner.exporting.destinations import Destination
from runner.record import layout

PACKAGES = {"s3": "s3fs", "abfs": "adlfs", "abfss": "adlfs", "gs": "gcsfs", "file": "fsspec"}


class Store(Destination):
    """A store that fsspec knows; the credentials are those its client finds by itself."""

    schemes: ClassVar[tuple[str, ...]] = tuple(PACKAGES)
    form = "s3://BUCKET/PATH, abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, gs://BUCKET/PATH, file:///FOLDER"

    def demand(self, address: str) -> None:
        """Raise `RequestError` where the store's client is not installed, or the address names no path."""
        scheme, _, rest = address.partition("://")
        if "/" not in rest.rstrip("/"):
            raise RequestError(f"push: got {address}, which names no folder; allowed: {self.form}.")
        try:
            import fsspec

            # Before the export is made: a package that is missing would be found after minutes.
            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise RequestError(
                f"push: {scheme}:// needs {PACKAGES[scheme]}; pip install {PACKAGES[scheme]}."
            ) from error

    def push(self, folder: Path, address: str) -> str:
        """Send each file of a folder; `export.json` comes last, so that a reader never takes a part for the whole."""
        import fsspec

        files = [each for each in folder.rglob("*") if each.is_file()]
        try:
            store, place = fsspec.url_to_fs(address)
            for each in sorted(files, key=lambda each: each.name == layout.EXPORT):
                at = f"{place.rstrip('/')}/{each.relative_to(folder).as_posix()}"
                store.makedirs(at.rpartition("/")[0], exist_ok=True)  # of a store without folders it makes none
                store.put_file(str(each), at)
        except PermissionError as error:
            raise AccessError(f"push: {address}: the store does not let us in: {error}") from error
        except Exception as error:  # each client has errors of its own, with no class in common
            raise ServiceError(f"push: {address}: {str(error).strip().splitlines()[0]}") from error
        return address


DESTINATION = Store()
