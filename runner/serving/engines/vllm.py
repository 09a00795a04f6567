"""`engine=vllm`: vLLM's server, for many users at a time on a GPU.

A program, by default of this environment or on PATH: vLLM pins its own torch, so that it seldom shares an environment.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from runner.errors import RequestError
from runner.serving.engines import SHOWN, Engine

NAME = "vllm"
# (Worker pid=1673) ERROR 11-27 14:26:23 [multiproc_executor.py:953] ValueError: …
_CAUSE = re.compile(r"^(?:\(.+?\) )?(?:ERROR .+?\] )?((?:\w+\.)*\w*(?:Error|Exception): .+)$", re.MULTILINE)


class Vllm(Engine):
    """vLLM, of whatever environment."""

    name = "vllm"
    form = "merged"
    # It reports machine, model and settings to its maker: https://docs.vllm.ai/en/latest/usage/usage_stats.html
    environment: ClassVar[Mapping[str, str]] = {"VLLM_NO_USAGE_STATS": "1"}

    def demand(self) -> str:
        """Return the path of its program. Raises `RequestError` where there is none."""
        found = find(self.program or NAME)
        if found is None:
            if self.program and (path := Path(self.program).expanduser()).exists():
                fix = "name the program in it" if path.is_dir() else "name another one, or chmod +x it"
                is_what = "a folder" if path.is_dir() else "not executable"
                raise RequestError(f"program: {self.program} is {is_what}; {fix}, as program=PATH/bin/vllm.")
            raise RequestError(
                f"program: no program {self.program or NAME} is found; install vLLM, in an environment of its own if "
                "need be (pip install vllm), and name it by program=PATH/bin/vllm, or use engine=transformers."
            )
        return found

    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return `vllm serve FOLDER`."""
        options = {"host": "127.0.0.1", "port": port, "served-model-name": model, **self.options(folder)}
        line = [self.demand(), "serve", str(folder), "--disable-uvicorn-access-log"]
        return [*line, *(f"--{name}={value}" for name, value in options.items())]

    def options(self, folder: Path) -> dict[str, str | int | float]:
        """Return what is said in addition of how a model is loaded and answers."""
        return {
            # Its own choice for weights in float32 is bfloat16, or float16 where the device has no bfloat16.
            "dtype": json.loads((folder / "config.json").read_bytes()).get("dtype", "auto"),
            # The model's own length where that fits into memory, else what does, in place of an error.
            "max-model-len": "auto",
            # A model's own defaults, top_k or a penalty say, would change what is drawn from, greedy answers, too.
            "generation-config": "vllm",
        }

    def reason(self, said: str) -> str:
        """Return the first error that it has printed: its last one is that there has been one in another process."""
        found = _CAUSE.search(said)
        return found[1][:SHOWN] if found else super().reason(said)


def find(program: str) -> str | None:
    """Return the whole path of a program that is named by its path or its name; None where it is not there."""
    # First the environment that runs this, which need not be activated.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which(Path(program).expanduser(), path=places)
    return found and str(Path(found).absolute())


ENGINE = Vllm
