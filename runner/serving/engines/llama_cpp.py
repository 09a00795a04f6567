"""`engine=llama_cpp`: llama.cpp's own server, which the package xllamacpp brings compiled, in a process of its own.

Called as `python -m runner.serving.engines.llama_cpp FOLDER NAME PORT`; it ends when its standard input is closed.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from runner.errors import RequestError
from runner.exporting.formats.gguf import FILE
from runner.serving.engines import Engine

CONTEXT = 8192
"""Tokens that a conversation may take; the model's own length where that is less."""


class LlamaCpp(Engine):
    """llama.cpp; its file is also what `llama-server` loads, and what built on it does."""

    name = "llama_cpp"
    form = "gguf"

    def demand(self) -> None:
        """Raise `RequestError` where the package is not installed."""
        if not find_spec("xllamacpp"):
            raise RequestError("llama.cpp: the package xllamacpp is not installed; pip install 'runner[export]'.")

    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return this module as a command."""
        return [sys.executable, "-W", "ignore", "-m", __name__, str(folder), model, str(port)]


def main() -> None:
    """Serve until standard input ends, which it does with the process that started this one, however that ends."""
    import xllamacpp

    folder, model, port = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = str(Path(folder) / FILE)
    params.model_alias = {model}
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    # Pages of other origins, in a browser of this machine, get no answer; it would let in all.
    params.cors_origins = f"http://127.0.0.1:{port}"
    # One conversation at a time has all of the context; the server shares it among parallel ones.
    params.n_ctx, params.n_parallel, params.warmup = CONTEXT, 1, False
    # An assistant's last turn is a turn like any other, as the template has it, and not the beginning of an answer.
    params.prefill_assistant = False
    # Its threads spin while they wait: more of them than cores are free slow each other down a hundredfold.
    params.cpuparams.n_threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    server = xllamacpp.Server(params)
    # The server has threads of its own; this one only waits. A signal would have to reach a child of a killed process.
    sys.stdin.read()
    del server


ENGINE = LlamaCpp()

if __name__ == "__main__":
    main()
