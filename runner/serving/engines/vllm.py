"""`engine=vllm`: vLLM's server, for many users at a time on a GPU."""

import sys
from importlib.util import find_spec
from pathlib import Path

from runner.errors import RequestError
from runner.serving.engines import Engine


class Vllm(Engine):
    """vLLM, where it is installed; it pins its own torch, so that it seldom shares an environment."""

    name = "vllm"
    form = "merged"

    def demand(self) -> None:
        """Raise `RequestError` where it is not installed."""
        if not find_spec("vllm"):
            raise RequestError(
                "engine: vllm is not installed; pip install vllm in an environment of its own and give it the folder "
                "of runner.export format=merged (docs/export.md), or use engine=transformers or llama_cpp."
            )

    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return `vllm serve FOLDER`."""
        # The command of the same environment, whatever is first on PATH.
        program = Path(sys.executable).with_name("vllm")
        return [
            str(program),
            "serve",
            str(folder),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--served-model-name",
            model,
        ]


ENGINE = Vllm()
