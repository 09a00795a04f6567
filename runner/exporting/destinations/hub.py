"""`push=hub:ORG/NAME`: a repository of models at the Hugging Face hub, by its own client and login."""

import os
import re
from pathlib import Path
from typing import ClassVar

from runner.errors import AccessError, RequestError, ServiceError
from runner.exporting.destinations import Destination


class Hub(Destination):
    """The hub; a repository that does not exist yet is made, and only those who may read ORG's see it."""

    schemes: ClassVar[tuple[str, ...]] = ("hub",)
    form = "hub:ORG/NAME"

    def demand(self, address: str) -> None:
        """Raise `RequestError` for another address than hub:ORG/NAME."""
        if not re.fullmatch(r"hub:[\w.-]+/[\w.-]+", address):
            raise RequestError(f"push: got {address}; allowed: {self.form}.")

    def push(self, folder: Path, address: str) -> str:
        """Send a folder in one commit; the token is that of `hf auth login`, or HF_TOKEN."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

        # Its address is asked for here: the client's own is read once, while it is imported.
        name, api = address.removeprefix("hub:"), HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        try:
            # Private at first: what was learned from may be, too. Its page has the switch.
            api.create_repo(name, private=True, exist_ok=True)
            done = api.upload_folder(
                repo_id=name, folder_path=folder, commit_message=f"{folder.name}, by runner.export"
            )
        except LocalTokenNotFoundError as error:
            raise AccessError(f"push: {address}: no token for the hub; run hf auth login, or set HF_TOKEN.") from error
        except (HfHubHTTPError, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            reason = str(error).strip().splitlines()[0]
            if status in (401, 403):
                raise AccessError(f"push: {address}: the hub does not let us in: {reason}; check HF_TOKEN.") from error
            raise ServiceError(f"push: {address}: the hub took nothing: {reason}") from error
        return str(done.commit_url)


DESTINATION = Hub()
