"""A model source in one file: `model.source=zip:FILE`, a zipped folder that transformers saved."""

from hashlib import file_digest
from pathlib import Path
from zipfile import ZipFile

from runner import cache
from runner.errors import ModelError
from runner.models.source import Source


class Zipped(Source):
    """Models in zip files of this machine."""

    scheme = "zip"

    def identify(self, rest: str, offline: bool = False) -> str:
        """Return the sha256 of the file."""
        try:
            with Path(rest).expanduser().open("rb") as file:
                return file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"model.source: {rest}: {error.strerror}; give a zip file with a model.") from error

    def cached(self, rest: str) -> Path:
        """Return the unpacked folder; unpacking needs no network, so it is done here."""
        return self.fetch(rest)

    def fetch(self, rest: str) -> Path:
        """Unpack the file into the user's cache, once per content."""
        folder = cache.user_folder() / "zipped-models"
        return cache.entry(folder, f"zip-{self.identify(rest)[:16]}", lambda draft: ZipFile(rest).extractall(draft))


SOURCE = Zipped()
