"""`engine=transformers`: `transformers serve`, which answers with the run's weights as they are.

Called as `python -m runner.serving.engines.transformers NAME PORT` in the folder that holds the model's folder NAME.
"""

import sys
import time
from pathlib import Path

from runner.serving.engines import PackageEngine


class Transformers(PackageEngine):
    """transformers' own server, for a few users at a time."""

    name = "transformers"
    form = "merged"
    packages = ("fastapi", "uvicorn", "openai")

    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return this module as a command: all requests are answered by that model."""
        return self.module(folder.name, str(port))

    def called(self, folder: Path, model: str) -> str:
        """Return the folder's name: a request for another model than it was started with is refused."""
        return folder.name


def main() -> None:
    """Start `transformers serve NAME`."""
    from transformers.cli.serve import Serve
    from transformers.cli.serving.model_manager import ModelManager
    from transformers.cli.serving.response import ResponseHandler

    handle = ResponseHandler.handle_request

    async def as_documented(self: ResponseHandler, body: dict[str, object], request_id: str) -> object:
        # OpenAI's answer is streamed where that is asked for; transformers 5.23 streams it where nothing is said, so
        # that the official client finds no output_text: `body.get("stream", True)` in cli/serving/response.py.
        body.setdefault("stream", False)
        return await handle(self, body, request_id)

    ResponseHandler.handle_request = as_documented
    model, port = sys.argv[1:]
    # Theirs lists the hub's cache, none of which is served here, and fails with 500 where there is no such folder.
    known = {"id": model, "object": "model", "created": int(time.time()), "owned_by": "runner"}
    ModelManager.get_gen_models = staticmethod(lambda: [known])
    Serve(model, host="127.0.0.1", port=int(port))


ENGINE = Transformers

if __name__ == "__main__":
    main()
