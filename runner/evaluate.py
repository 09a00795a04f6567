"""Evaluate models: the same prompts answered by each, and the answers graded.

MODEL is a run (its folder, its name under `runs/`, or the start of its plan id), RUN@base for the model that it was
made from, RUN@STEP for a checkpoint (a hosted one, or a hosted run's model, is deployed for the time with
backend.deploy=delete_after_eval), a source as in `model.source` (hf:…, path:…, models:/…), deployment:NAME,
hosted:NAME for a deployment of that base model, tinker:NAME for one at Tinker, session:NAME for one of Foundry's
sessions, or endpoint:URL#NAME for any OpenAI-compatible endpoint. The others are compared with the first one; a run
alone is compared with its base model.
Rows and graders are those of the first run, changed by KEY=VALUE.

  python -m runner.evaluate dpo-house_style
  python -m runner.evaluate RUN RUN evaluation.graders=[house_style,length]
  python -m runner.evaluate RUN deployment:my-gpt evaluation.prompts=rows.jsonl

With harness=[TASK,…] the models are measured by benchmarks of lm-evaluation-harness instead, own tasks as YAML among
them. With --calibrate FILE graders grade the answers in a file that people have labelled, and are measured by that.

  python -m runner.evaluate RUN harness=[gsm8k,ifeval] evaluation.max_rows=100
  python -m runner.evaluate --calibrate labelled.jsonl helpful

The same command continues where it stopped; no answer and no judgement is asked for twice.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import RequestError
from runner.evaluation import requests
from runner.request.keys import Request
from runner.terminal import cli, console

if TYPE_CHECKING:
    from runner.evaluation.benchmark.measured import BenchmarkMetric


def main() -> None:
    """Evaluate, and leave with 0, 1 where a service fails, 2 for what cannot be evaluated, 130 after Ctrl-C."""
    cli.main(_evaluate)


def _evaluate(arguments: list[str]) -> None:
    asked = _parser().parse_args(arguments)
    names, overrides = requests.divided(asked.models)
    if asked.calibrate is not None:
        _calibrate(asked, names, overrides)
        return
    if not names:
        raise RequestError("evaluate: no model is named; name a run, a source or an endpoint; --help shows how.")
    request, names = requests.of(names, overrides, asked.runs_folder)
    work = _benchmarks if request.harness else _prompts
    folder = work(request, names, asked)
    _show(folder, request, asked)


def _prompts(request: Request, names: Sequence[str], asked: argparse.Namespace) -> Path:
    """Let models answer prompts, and graders grade the answers; return the folder that holds both."""
    from runner.evaluation import evaluate, judges
    from runner.evaluation.rehearsal import tried
    from runner.execution import execute
    from runner.record import samples
    from runner.record.journal import Record
    from runner.terminal.progress import Live

    planned = evaluate.plan(request, requests.respondents(names, request, asked.runs_folder), asked.runs_folder)
    keys, sampling = request.evaluation.judge, samples.sampling(request)
    if len(names) == 1 and planned.graders and all(each.compares for each in planned.graders):
        raise RequestError(
            f"evaluation.graders: {planned.graders[0].name} compares two models' answers, and {names[0]} is alone; "
            "name another one before it, whose answers are the other side."
        )
    # Before the answers: they may take an hour, and a judge without a key would waste it.
    judges.demand_key(keys, planned.graders)
    # With the answers that are there already, so that what is paid is not priced again.
    rehearsed = tried.rehearse(planned.rows, planned.graders, keys, sampling, names, evaluate.answered(planned))
    if not asked.json:
        console.say(f"{len(planned.rows)} rows, answered by {', '.join(names)}")
        console.show_graders(rehearsed)
    console.confirm_price(judges.total(rehearsed), request.max_price)
    # Progress on standard error with --json, so that standard output is one JSON value.
    with execute.alone(planned.folder), Live(console.errors if asked.json else console.terminal) as live:
        execute.to_its_end(evaluate.carry_out(planned), lambda event: live(Record(time.time(), event)))
    return planned.folder


def _benchmarks(request: Request, names: Sequence[str], asked: argparse.Namespace) -> Path:
    """Measure models by benchmarks, and print each metric with its error; return the folder that holds them."""
    from runner.evaluation import benchmark
    from runner.execution import execute

    planned = benchmark.plan(request, requests.respondents(names, request, asked.runs_folder), asked.runs_folder)
    with execute.alone(planned.folder):
        found = benchmark.carry_out(planned, lambda text: None if asked.json else console.say(f"benchmark: {text}"))
    if not asked.json:
        rows = [_benchmark_row(each) for measured in found for each in measured.metrics]
        console.table("Benchmarks", ["model", "task", "metric", "value", "standard error", "rows"], rows, fold=False)
    return planned.folder


def _benchmark_row(found: "BenchmarkMetric") -> list[str]:
    error = "" if found.stderr is None else f"{found.stderr:.2g}"
    rows = "" if found.rows is None else f"{found.rows:,}"
    return [found.model, found.task, found.metric, f"{found.value:.4g}", error, rows]


def _show(folder: Path, request: Request, asked: argparse.Namespace) -> None:
    """Print how the models of a folder compare, and send them to MLflow."""
    from runner.compare import models
    from runner.record import graded, layout
    from runner.tracking import evaluation_runs
    from runner.tracking.client import shown, store

    compared = bool(graded.read(folder / graded.GRADES, graded.AnswerGrade))
    found = models.compare_models(folder, asked.margin) if compared else None
    # After everything is on the disk: a store that is down costs nothing, the same command sends what is missing.
    problem = evaluation_runs.write(request, folder)
    where = shown(store(request.tracking.uri))
    failed = f"MLflow: {where} could not be reached ({problem}); the same command sends what is missing"
    if asked.json:
        if problem:
            console.complain(failed)
        compared_as_json: dict[str, Any] = models.as_json(found) if found else {}
        benchmarks = folder / layout.BENCHMARKS
        with_benchmarks = {"benchmarks": msgspec.json.decode(benchmarks.read_bytes())} if request.harness else {}
        _print(compared_as_json | with_benchmarks)
        return
    if found is not None:
        console.table("Mean scores", *found.table, fold=False)
        for sentence in found.sentences:
            console.say(f"{sentence}.")
    if request.tracking.enabled:
        console.say(f"\n{failed if problem else f'MLflow: {where}'}")
    ungraded = f"no answer is graded: name graders, evaluation.graders=[…]; the answers are in {folder}"
    compare = f"kept in {folder}; python -m runner.compare {folder} shows the answers side by side"
    console.say(f"\n{compare if found else ungraded}")


def _calibrate(asked: argparse.Namespace, graders: Sequence[str], overrides: Sequence[str]) -> None:
    """Let graders grade labelled answers, and print how far they agree with people and with themselves."""
    from runner import api
    from runner.evaluation import calibration, judges
    from runner.judging.price import total
    from runner.request import check

    request = check.request(api.composed(*overrides))
    keys = request.evaluation.judge
    planned = calibration.plan(str(asked.calibrate), list(graders) or request.evaluation.graders, request)
    judges.demand_key(keys, planned.graders)
    prices = calibration.prices(planned)
    for name, price in () if asked.json else prices.items():
        console.say(f"grader {name}: {price.sentence}")
    console.confirm_price(total(prices.values()), request.max_price)
    found = calibration.carry_out(planned)
    if asked.json:
        _print(found)
        return
    for each in found:
        console.say()
        console.table(f"{each.grader}, on {each.rows} labelled answers", *calibration.table(each))
        for warning in each.warnings:
            console.say(f"warning: grader {each.grader}: {warning}")


def _print(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("runner.evaluate", __doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL or KEY=VALUE")
    parser.add_argument(
        "--calibrate", type=Path, metavar="FILE", help="measure graders, named in place of models, by labelled answers"
    )
    parser.add_argument(
        "--margin", type=cli.margin, help="also say which is no worse by more than this (0.02: 2 points)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    main()
