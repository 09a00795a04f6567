"""`python -m runner.chat RUN`: talk to a run's tuned model, beside the model it came from.

RUN is a run's folder, its name under `runs/`, or the start of its plan id; without it, the newest run that
has a model. Ctrl-D or an empty line ends it. A question can also be piped in.
"""

import sys
from pathlib import Path
from typing import Any

from runner import console
from runner.data.rows import Message
from runner.errors import ModelError, RunnerError


def main() -> None:
    """Load both models and answer each line of standard input twice."""
    try:
        _chat(_folder(sys.argv[1:]))
    except RunnerError as error:
        console.complain(str(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, EOFError):
        console.say()


def _folder(arguments: list[str]) -> Path:
    from runner.models import run

    if len(arguments) > 1 or any(each.startswith("-") for each in arguments):
        raise ModelError("usage: python -m runner.chat [RUN]; RUN is a folder, a name under runs/ or a plan id.")
    if arguments:
        return run.find(arguments[0]) / "model"
    made = sorted(Path("runs").glob("*/model/reference.json"), key=lambda path: path.stat().st_mtime)
    if not made:
        raise ModelError("runs/: no run has a model yet; make one with python -m runner.")
    return made[-1].parent


def _chat(folder: Path) -> None:
    from runner.models import fetch, reference
    from runner.pyfunc import Answerer

    found = reference.demand(folder, folder.parent.name)
    console.say(f"Loading {folder.parent.name} and {found.base.source.partition('@sha256')[0]} …")
    pair = {"base": Answerer(fetch(found.base.source)), "tuned": Answerer(folder)}
    console.say("Ask something; an empty line ends it.")
    while question := _next_line():
        console.table("", ["", ""], [[name, _answer(model, question)] for name, model in pair.items()])


def _next_line() -> str:
    return input("> " if sys.stdin.isatty() else "").strip()


def _answer(model: Any, question: str) -> str:
    return str(model.answer((Message(role="user", content=question),)))


if __name__ == "__main__":
    main()
