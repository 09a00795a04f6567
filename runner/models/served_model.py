"""Base models that a training service offers, named as Hugging Face's hub names them: `SCHEME:ORG/NAME`.

Their tokenizer is the hub's, and a few MB; weights are fetched only where an adapter is loaded on this machine.
`SCHEME:NAME@SOURCE` takes both from another source, as for a server of one's own: `tinker:my/model@path:FOLDER`.
"""

import re
from pathlib import Path

from runner import models
from runner.errors import ModelError
from runner.models import vision
from runner.models.source import Source

TOKENIZER = ["config.json", "generation_config.json", "tokenizer*.json", "*.jinja", "*processor_config.json"]
"""The files of a model that its tokens depend on, those of images too, and where an answer ends."""


class ServedModel(Source):
    """Models that a service trains."""

    served = True

    def __init__(self, scheme: str, no_rest: str) -> None:
        self.scheme, self.no_rest = scheme, no_rest

    def identify(self, rest: str, offline: bool = False) -> str:
        """Return no digest: the name is all that the service reports."""
        self.split(rest)  # raises for a name that is none
        return ""

    def cached(self, rest: str) -> Path | None:
        """Return a folder with the tokenizer, if it is on this machine."""
        return models.cached(self.split(rest)[1])

    def fetch(self, rest: str) -> Path:
        """Bring the weights to this machine."""
        return models.fetch(self.split(rest)[1])

    def split(self, rest: str) -> tuple[str, str]:
        """Return the model's name at the service and the source of its files. Raises `ModelError` for anything else."""
        name, _, source = rest.strip().partition("@")
        if not re.fullmatch(r"[\w.-]+/[\w.:-]+", name):
            raise ModelError(
                f"model.source: got '{self.scheme}:{rest}'; allowed: {self.scheme}:ORG/NAME, "
                f"{self.scheme}:ORG/NAME@SOURCE, or run:RUN to continue from a run's result."
            )
        # A name may carry the length of its context after a colon, which the hub does not know.
        return name, source or f"hf:{name.partition(':')[0]}"

    def fetch_tokenizer(self, rest: str) -> Path:
        """Bring a model's tokenizer to this machine, and none of its weights; return its folder.

        Raises `ModelError` where it cannot be had.
        """
        name, source = self.split(rest)
        found = models.cached(source)
        if found is not None and not _lacks_processor(found):
            return found
        if not source.startswith("hf:"):
            return models.fetch(source)
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        # Some MB, where the whole repository may have hundreds of GB.
        hub, _, revision = source.removeprefix("hf:").partition("@")
        try:
            return Path(snapshot_download(hub, revision=revision or None, allow_patterns=TOKENIZER))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"model.source: the hub gave no tokenizer of {name}: {reason}") from error


def _lacks_processor(folder: Path) -> bool:
    """Say whether a model that sees came without its image processor, as earlier versions of the runner fetched it."""
    return vision.sees(folder) and not any(folder.glob("*processor_config.json"))
