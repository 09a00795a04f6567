"""Talk to a run's tuned model, next to the model it was made from.

RUN is a run's folder, its name under `runs/`, or the start of its plan id; without it, the newest run that
has a model. An empty line or Ctrl-D ends the conversation. Questions can also be piped in.

  python -m runner.chat dpo-house_style
  echo "How do I keep bread fresh?" | python -m runner.chat
"""

import sys
from contextlib import suppress
from pathlib import Path

from runner import backends, planning
from runner.data.rows import Message, Prompt
from runner.errors import ModelError
from runner.record import graded, run_folders
from runner.record.journal import read_state
from runner.record.samples import Sampling
from runner.terminal import cli, console

MAX_NEW_TOKENS = 512
"""Tokens an answer may take."""


def main() -> None:
    """Load both models and answer each line of standard input twice."""
    cli.main(_chat)


def _chat(arguments: list[str]) -> None:
    parser = cli.parser("runner.chat", __doc__)
    parser.add_argument("run", nargs="?", metavar="RUN", help="the run; without it the newest that has a model")
    given = parser.parse_args(arguments)
    folder = run_folders.find(given.run, given.runs_folder) if given.run else _newest(given.runs_folder)
    run = planning.load(folder)
    console.say(f"Asking {run.folder.name} and {run.plan.model.source.partition('@sha256')[0]} …")
    every = backends.of(run).respondents(run, read_state(folder))
    # Without checkpoints: answers of two columns can be read side by side, of ten cannot.
    models = {name: model for name, model in every.items() if name in graded.SIDES}
    # Nothing is deployed by a conversation: it has no end at which it would be removed for sure.
    if missing := next((each.missing for each in models.values() if isinstance(each, backends.Undeployed)), None):
        raise ModelError(missing)
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
    console.say("Ask something; an empty line ends it.")
    try:
        with suppress(EOFError):
            while question := _next_line():
                prompt = Prompt((Message(role="user", content=question),))
                answers = [
                    [name, next(iter(each.replies([prompt], sampling)))[0].text] for name, each in models.items()
                ]
                console.table("", ["", ""], answers)
    finally:
        for each in models.values():
            each.close()


def _newest(runs: Path) -> Path:
    folder = run_folders.latest_with_model(runs)
    if folder is None:
        raise ModelError(f"{runs}/: no run has a model yet; make one with python -m runner.")
    return folder


def _next_line() -> str:
    return input("> " if sys.stdin.isatty() else "").strip()


if __name__ == "__main__":
    main()
