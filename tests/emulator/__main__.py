"""`python -m tests.emulator`: a rehearsal of hosted services on this machine, which really train.

Paste the lines that it prints into another terminal, and run `python -m runner` with `backend=foundry`,
`backend=foundry_sessions` or `backend=tinker` there.
"""

import argparse
import signal
import sys
import tempfile
import threading
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.emulator.emulator import Emulator
from tests.emulator.local import LocalTraining, default_source
from tests.emulator.sessions import SessionsEmulator

MODEL = "rehearsal/model"
"""What the one model of the emulated Tinker, and of the emulated sessions, is called."""
PASTE = "Paste these lines into another terminal, and run the runner there; Ctrl-C here ends the services."


def main() -> None:
    """Serve until Ctrl-C, or until asked to terminate."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulator", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="the port; default: a free one")
    parser.add_argument("--model", metavar="SOURCE", help="what the hosted models stand for: path:FOLDER, pypi:…, hf:…")
    parser.add_argument("--style", choices=("strict", "lax"), default="lax", help="OpenAI's answers, or Azure's")
    asked = parser.parse_args()
    # On standard error, so that `source <(…)` takes the lines alone.
    sys.stderr.write("The services start, in some seconds …\n")
    source = asked.model or default_source()
    tinker = _tinker(source) if find_spec("tinker") else nullcontext()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job begins with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="rehearsal-") as folder,
            LocalTraining(Path(folder), asked.model) as engine,
            Emulator(asked.style, engine=engine, port=asked.port, sessions=_sessions(source)) as cloud,
            tinker as primitives,
        ):
            cloud.add_deployment("gpt-4.1-mini", "gpt-4.1-mini")
            variables = cloud.environment() | cloud.judge_environment() | {"FOUNDRY_SESSION_MODEL": f"{MODEL}@{source}"}
            if primitives is not None:
                variables |= primitives.environment() | {"TINKER_MODEL": f"{MODEL}@{source}"}
            sys.stdout.write("".join(f"export {name}={value}\n" for name, value in variables.items()))
            sys.stdout.flush()
            sys.stderr.write(f"{PASTE}\n")
            threading.Event().wait()
    except KeyboardInterrupt:  # whenever it comes: a reader has all it wants once the last line is out
        sys.stdout.write("\n")


def _tinker(source: str) -> Any:
    """Return the emulator of Tinker, whose one model is that of a source, loaded when it is first asked for."""
    from tests.emulator.primitives.bases import Fetched
    from tests.emulator.tinker import TinkerEmulator

    return TinkerEmulator(Fetched(MODEL, source))


def _sessions(source: str) -> SessionsEmulator:
    """Return the emulator of Foundry's sessions, whose one model is that of a source."""
    from tests.emulator.primitives.bases import Fetched

    return SessionsEmulator(Fetched(MODEL, source))


if __name__ == "__main__":
    main()
