"""Talk to a run's tuned model, next to the model it was made from.

RUN is a run's folder, its name under `runs/`, or the start of its plan id; without it, the newest run that
has a model. An empty line or Ctrl-D ends the conversation. Questions can also be piped in.

  python -m runner.chat dpo-house_style
  echo "How do I keep bread fresh?" | python -m runner.chat
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from runner import planning
from runner.data.rows import Message
from runner.errors import ModelError
from runner.models import hosted_model
from runner.record import run_folders
from runner.record.journal import read_state
from runner.record.samples import Prompt
from runner.terminal import cli, console


class Answers(Protocol):
    """A model that answers a conversation."""

    def answer(self, prompt: Prompt) -> str:
        """Return the answer to one conversation."""


def main() -> None:
    """Load both models and answer each line of standard input twice."""
    cli.main(_chat)


def _chat(arguments: list[str]) -> None:
    parser = cli.parser("runner.chat", __doc__)
    parser.add_argument("run", nargs="?", metavar="RUN", help="the run; without it the newest that has a model")
    given = parser.parse_args(arguments)
    folder = run_folders.find(given.run, given.runs_folder) if given.run else _newest(given.runs_folder)
    here = hosted_model.read(folder) is None
    models = _loaded(folder) if here else _deployed(folder)
    console.say("Ask something; an empty line ends it.")
    with suppress(EOFError):
        while question := _next_line():
            prompt = (Message(role="user", content=question),)
            console.table("", ["", ""], [[name, model.answer(prompt)] for name, model in models.items()])


def _newest(runs: Path) -> Path:
    folder = run_folders.latest_with_model(runs)
    if folder is None:
        raise ModelError(f"{runs}/: no run has a model yet; make one with python -m runner.")
    return folder


def _loaded(folder: Path) -> dict[str, Answers]:
    """Return the models of a run on this machine."""
    from runner.models import fetch, model_reference
    from runner.pyfunc import Answerer

    found = model_reference.demand(folder / "model", folder.name)
    console.say(f"Loading {folder.name} and {found.base.source.partition('@sha256')[0]} …")
    return {"base": Answerer(fetch(found.base.source)), "tuned": Answerer(folder / "model")}


def _deployed(folder: Path) -> dict[str, Answers]:
    """Return the models of a hosted run, as far as they are deployed."""
    from runner.backends.foundry.connect import service
    from runner.hosted.generate import Deployed

    known = read_state(folder)
    names = known.results.get("deploy", {})
    if known.latest("deploy", "undeploy") != "deploy":
        raise ModelError(f"{folder}: its model is not deployed; give the run's command again with backend.deploy=keep.")
    there = service(planning.load(folder).request.backend)
    found = {"base": names["base"], "tuned": names["deployment"]}
    return {name: Deployed(there, deployment) for name, deployment in found.items() if deployment}


def _next_line() -> str:
    return input("> " if sys.stdin.isatty() else "").strip()


if __name__ == "__main__":
    main()
