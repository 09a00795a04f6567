"""Evaluate models: the same prompts answered by each, and the answers graded.

MODEL is a run (its folder, its name under `runs/`, or the start of its plan id), RUN@base for the model that it was
made from, RUN@STEP for a checkpoint, a source as in `model.source` (hf:…, path:…, models:/…), deployment:NAME, or
endpoint:URL#NAME for any OpenAI-compatible endpoint. The others are compared with the first one; a run alone is
compared with its base model. Rows and graders are those of the first run, changed by KEY=VALUE.

  python -m runner.evaluate dpo-house_style
  python -m runner.evaluate RUN RUN evaluation.graders=[house_style,length]
  python -m runner.evaluate RUN deployment:my-gpt evaluation.prompts=questions.jsonl

The same command goes on where it stopped; no answer and no judgement is asked for twice.
"""

import argparse
import sys
import time

import msgspec

from runner.errors import RequestError
from runner.evaluation import requests
from runner.terminal import cli, console


def main() -> None:
    """Evaluate, and leave with 0, 1 where a service fails, 2 for what cannot be evaluated, 130 after Ctrl-C."""
    cli.main(_evaluate)


def _evaluate(arguments: list[str]) -> None:
    from runner.compare import models
    from runner.evaluation import evaluate, judges, rehearsal
    from runner.execution import execute
    from runner.record import samples
    from runner.record.journal import Record
    from runner.terminal.progress import Live

    asked = _parser().parse_args(arguments)
    names, overrides = requests.divided(asked.models)
    if not names:
        raise RequestError("evaluate: no model is named; name a run, a source or an endpoint; --help shows how.")
    request, names = requests.of(names, overrides, asked.runs_folder)
    planned = evaluate.plan(request, requests.respondents(names, request, asked.runs_folder), asked.runs_folder)
    keys, sampling = request.evaluation.judge, samples.sampling(request)
    judges.demand_key(keys, planned.graders)
    rehearsed = rehearsal.rehearse(planned.rows, planned.graders, keys, sampling, names, evaluate.answered(planned))
    if not asked.json:
        console.say(f"{len(planned.rows)} rows, answered by {', '.join(names)}")
        console.show_graders(rehearsed)
    console.confirm_price(judges.total(rehearsed), request.max_price)
    with execute.alone(planned.folder), Live(console.errors if asked.json else console.terminal) as live:
        execute.to_its_end(evaluate.carry_out(planned), lambda event: live(Record(time.time(), event)))
    found = models.compare_models(planned.folder, asked.margin)
    if asked.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(models.as_json(found))).decode() + "\n")
        return
    console.table("Mean scores", *found.table, fold=False)
    for sentence in found.sentences:
        console.say(f"{sentence}.")
    console.say(f"\nkept in {planned.folder}; python -m runner.compare {planned.folder} shows the answers side by side")


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("runner.evaluate", __doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL or KEY=VALUE")
    parser.add_argument("--margin", type=float, help="also say which is no worse by more than this (0.02: 2 points)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    main()
