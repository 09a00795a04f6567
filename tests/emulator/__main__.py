"""`python -m tests.emulator`: a rehearsal of the hosted service on this machine, which really trains.

Paste the lines that it prints into another terminal and run `python -m runner backend=foundry` there.
"""

import argparse
import signal
import sys
import tempfile
import threading
from pathlib import Path

from tests.emulator.emulator import Emulator
from tests.emulator.local import LocalTraining


def main() -> None:
    """Serve until Ctrl-C, or until asked to terminate."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulator", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="the port; default: a free one")
    parser.add_argument("--model", metavar="SOURCE", help="what the hosted models stand for: path:FOLDER, pypi:…, hf:…")
    parser.add_argument("--style", choices=("strict", "lax"), default="lax", help="OpenAI's answers, or Azure's")
    asked = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job begins with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="rehearsal-") as folder,
            LocalTraining(Path(folder), asked.model) as engine,
            Emulator(asked.style, engine=engine, port=asked.port) as cloud,
        ):
            cloud.add_deployment("gpt-4.1-mini", "gpt-4.1-mini")
            sys.stdout.write("".join(f"export {name}={value}\n" for name, value in cloud.environment().items()))
            sys.stdout.flush()
            threading.Event().wait()
    except KeyboardInterrupt:  # whenever it comes: a reader has all it wants once the last line is out
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
