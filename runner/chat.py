"""`python -m runner.chat RUN`: talk to a run's tuned model, beside the model it came from.

RUN is a run's folder, its name under `runs/`, or the start of its plan id; without it, the newest run that
has a model. Ctrl-D or an empty line ends it. A question can also be piped in.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from runner import command, console, plan
from runner.data.rows import Message
from runner.errors import ModelError
from runner.journal import progressed
from runner.models import hosted, run
from runner.samples import Prompt


class Answers(Protocol):
    """A model that answers a conversation."""

    def answer(self, prompt: Prompt) -> str:
        """Return the answer to one conversation."""


def main() -> None:
    """Load both models and answer each line of standard input twice."""
    command.run(_chat)


def _chat(arguments: list[str]) -> None:
    folder = _folder(arguments)
    here = hosted.read(folder) is None
    models = _loaded(folder) if here else _deployed(folder)
    console.say("Ask something; an empty line ends it.")
    with suppress(EOFError):
        while question := _next_line():
            prompt = (Message(role="user", content=question),)
            console.table("", ["", ""], [[name, model.answer(prompt)] for name, model in models.items()])


def _folder(arguments: list[str]) -> Path:
    if len(arguments) > 1 or any(each.startswith("-") for each in arguments):
        raise ModelError("usage: python -m runner.chat [RUN]; RUN is a folder, a name under runs/ or a plan id.")
    if arguments:
        return run.find(arguments[0])
    made = sorted(Path("runs").glob("*/model/*.json"), key=lambda path: path.stat().st_mtime)
    if not made:
        raise ModelError("runs/: no run has a model yet; make one with python -m runner.")
    return made[-1].parent.parent


def _loaded(folder: Path) -> dict[str, Answers]:
    """Return the models of a run on this machine."""
    from runner.models import fetch, reference
    from runner.pyfunc import Answerer

    found = reference.demand(folder / "model", folder.name)
    console.say(f"Loading {folder.name} and {found.base.source.partition('@sha256')[0]} …")
    return {"base": Answerer(fetch(found.base.source)), "tuned": Answerer(folder / "model")}


def _deployed(folder: Path) -> dict[str, Answers]:
    """Return the models of a hosted run, as far as they are deployed."""
    from runner.backends.foundry.answers import Deployed
    from runner.backends.foundry.service import service

    known = progressed(folder)
    names = known.results.get("deploy", {})
    if known.latest("deploy", "undeploy") != "deploy":
        raise ModelError(f"{folder}: its model is not deployed; give the run's command again with backend.deploy=keep.")
    there = service(plan.load(folder).request.backend)
    found = {"base": names["base"], "tuned": names["deployment"]}
    return {name: Deployed(there, deployment) for name, deployment in found.items() if deployment}


def _next_line() -> str:
    return input("> " if sys.stdin.isatty() else "").strip()


if __name__ == "__main__":
    main()
