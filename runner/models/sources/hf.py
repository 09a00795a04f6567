"""`hf:ORG/NAME` or `hf:ORG/NAME@REVISION`: a model on the Hugging Face hub, in the hub's own cache."""

import re
from pathlib import Path

from runner.errors import ModelError
from runner.models.source import Source
from runner.record import layout

_COMMIT = re.compile(r"[0-9a-f]{40}")


class Hub(Source):
    """Models on the Hugging Face hub."""

    scheme = "hf"

    def identify(self, rest: str, offline: bool = False) -> str:
        """Return the commit that the revision means, from the hub, or offline from its cache."""
        name, revision = _parse(rest)
        # A commit never changes; a branch or a tag may, so that a plan names what it means now.
        if _COMMIT.fullmatch(revision):
            return revision
        folder = self.cached(rest)
        if offline and folder is None:
            raise ModelError(
                f"model.source: {name} is not on this machine, so a plan cannot know its revision; "
                "name a commit (hf:ORG/NAME@COMMIT) or run once."
            )
        # Online a branch is asked for again: it may have moved since it was cached.
        return folder.name if offline and folder else self.fetch(rest).name

    def cached(self, rest: str) -> Path | None:
        """Return the snapshot's folder, named by its commit, if the hub's cache has it."""
        from huggingface_hub import try_to_load_from_cache

        name, revision = _parse(rest)
        # The one file that every model has; its folder is the snapshot, named by the commit.
        found = try_to_load_from_cache(name, "config.json", revision=revision)
        return Path(found).parent if isinstance(found, str) else None

    def fetch(self, rest: str) -> Path:
        """Download the snapshot and return its folder, named by its commit."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        name, revision = _parse(rest)
        # No pickles (*.bin, *.pt), which run code when they are loaded, and no copies for other frameworks.
        wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", layout.CARD]  # the card has the licence
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            # Its own words for a hub that cannot be reached begin so.
            reason = str(error).strip().splitlines()[0].removeprefix("Got: ").rstrip(".")
            raise ModelError(
                f"model.source: {name} at {revision} could not be fetched from the hub ({reason}); check the name, the "
                "revision and the network, or name a folder that is here: path:FOLDER."
            ) from error


def _parse(rest: str) -> tuple[str, str]:
    name, _, revision = rest.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ModelError(f"model.source: got 'hf:{rest}'; allowed: hf:ORG/NAME or hf:ORG/NAME@REVISION.")
    return name, revision or "main"


SOURCE = Hub()
