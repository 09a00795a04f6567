"""`path:FOLDER`: a model that transformers saved in a folder of this machine."""

from hashlib import file_digest, sha256
from pathlib import Path

from runner.errors import ModelError
from runner.models.source import Source


class Folder(Source):
    """Models in folders of this machine."""

    scheme = "path"

    def identify(self, rest: str, offline: bool = False) -> str:
        """Return the sha256 over names and contents of the files that decide what the model says."""
        folder = self.fetch(rest)
        whole = sha256()
        for path in sorted(folder.iterdir()):
            # Weights, configuration, tokenizer and template; a README or a lock file changes nothing.
            if path.suffix in {".safetensors", ".json", ".jinja"}:
                with path.open("rb") as file:
                    # By name and content, not by path or time: a folder may be moved or copied.
                    whole.update(path.name.encode() + file_digest(file, "sha256").digest())
        return whole.hexdigest()

    def cached(self, rest: str) -> Path | None:
        """Return the folder if it holds a model."""
        folder = Path(rest).expanduser()
        return folder if (folder / "config.json").exists() else None

    def fetch(self, rest: str) -> Path:
        """Return the folder; raises `ModelError` if it holds no model."""
        folder = self.cached(rest)
        if folder is None:
            raise ModelError(f"model.source: {rest} is no folder with a config.json; give one that transformers saved.")
        return folder


SOURCE = Folder()
