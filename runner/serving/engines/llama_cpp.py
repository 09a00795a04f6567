"""`engine=llama_cpp`: llama.cpp's own server, which the package xllamacpp brings compiled, in a process of its own.

Called as `python -m runner.serving.engines.llama_cpp FOLDER NAME PORT`; a signal ends it.
"""

import os
import signal
import sys
from pathlib import Path

from runner.exporting.formats.gguf import FILE
from runner.serving.engines import PackageEngine

CONTEXT = 8192
"""Tokens that a conversation may take; the model's own length where that is less."""


class LlamaCpp(PackageEngine):
    """llama.cpp; its file is also what `llama-server` loads, and what built on it does."""

    name = "llama_cpp"
    form = "gguf"
    packages = ("xllamacpp",)

    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return this module as a command."""
        return self.module(str(folder), model, str(port))


def main() -> None:
    """Serve until a signal ends this process."""
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
    # The server has threads of its own; this one only waits.
    signal.pause()
    del server


ENGINE = LlamaCpp

if __name__ == "__main__":
    main()
