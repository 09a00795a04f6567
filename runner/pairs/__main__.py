"""Make preference rows of a model's own answers: ask each prompt several times, grade, keep the best against the worst.

  python -m runner.pairs dataset=prompts.jsonl grader=brief
  python -m runner.pairs dataset=prompts.jsonl grader=brief model=RUN to=round2
  python -m runner.pairs dataset=prompts.jsonl grader=brief mode=plan

  dataset=FILE   prompts, and fields for the grader; rows of any shape
  grader=NAME    which answer is better: conf/grader/NAME.yaml, a file, or JSON
  model=MODEL    what answers, as in runner.evaluate: a run, a source, an
                 endpoint; by default model.source
  n=8            answers to each prompt
  margin=0.25    by how much the best score has to exceed the worst
  at_least=…     the score from which an answer is good enough to be imitated;
                 by default the grader's threshold
  similar=0.9    from where prompts, or a best and a worst answer, are nearly
                 the same, and left out
  to=pairs       the folder for pairs.jsonl (DPO), best.jsonl (SFT), and a card
                 that says how they were made

All other keys are those of a request: evaluation.max_new_tokens, evaluation.temperature, evaluation.judge.url, seed,
max_price. mode=plan asks nothing. The same command continues where it stopped; no answer that is kept is asked for
again, and no judgement is paid twice. Then: python -m runner +experiments=dpo_on_policy.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.terminal import cli, console

if TYPE_CHECKING:
    from runner.pairs.card import Made


def main() -> None:
    """Make rows, and leave with 0, 1 where a service fails, 2 for what cannot be made, 130 after Ctrl-C."""
    cli.main(_pairs)


def _pairs(arguments: list[str]) -> None:
    parser = cli.parser("runner.pairs", __doc__)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    # Only now, so that --help is quick.
    from runner.evaluation import evaluate, judges
    from runner.evaluation.rehearsal import tried
    from runner.execution import execute
    from runner.pairs import card, choosing, making
    from runner.record import samples
    from runner.record.journal import Record
    from runner.terminal.progress import Live

    planned = making.plan(asked.overrides, asked.runs_folder)
    evaluation, keys = planned.evaluation, planned.keys
    card.require_ours(Path(keys.to), keys.dataset)
    judge, sampling = planned.request.evaluation.judge, samples.sampling(planned.request)
    known = evaluate.answered(evaluation)
    # Before any answer: a field that the grader needs and that no row has, and what its judge will cost.
    rehearsed = tried.rehearse(evaluation.rows, [planned.grader], judge, sampling, [planned.model], known)
    if not asked.json:
        left = f", {planned.repeated:,} more are nearly the same and not asked" if planned.repeated else ""
        console.say(f"{len(evaluation.rows):,} prompts, answered {keys.n} times each by {planned.model}{left}")
        console.show_graders(rehearsed)
    if planned.request.mode == "plan":
        return
    judges.demand_key(judge, [planned.grader])
    console.confirm_price(judges.total(rehearsed), planned.request.max_price)
    # Progress on standard error with --json, so that standard output is one JSON value.
    output = console.errors if asked.json else console.terminal
    with execute.alone(evaluation.folder), Live(output) as live:
        grades = execute.to_its_end(
            evaluate.carry_out(evaluation), lambda event: live(Record(time.time(), event))
        )  # fmt: skip
        found = choosing.scored(evaluate.answered(evaluation), grades)
        choice = choosing.choose(
            evaluation.rows, found, margin=keys.margin, at_least=planned.at_least, similar=keys.similar
        )
        made = card.write(planned, choice, found)
    if asked.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(made)).decode() + "\n")
        return
    _show(made, Path(keys.to), evaluation.folder)


def _show(made: "Made", folder: Path, evaluation: Path) -> None:
    """Print what was made, and what can be done with it."""
    from runner.pairs.card import BEST, CARD, PAIRS

    counts = {"pairs": made.counts["pairs"], "answers to imitate": made.counts["best answers"]}
    rows = [[name, f"{count:,} of {made.counts['prompts']:,} prompts"] for name, count in counts.items()]
    rows += [[f"no pair: {reason}", f"{count:,}"] for reason, count in made.no_pair.items()]
    rows += [[f"mean score, {name}", f"{mean:.3f}"] for name, mean in made.means.items()]
    console.table(str(folder / CARD), ["", ""], rows)
    cut_off = made.no_pair.get("every answer is empty or cut off", 0)
    # What else was found is a note of the grading: how many answers have no grade, and why.
    if not made.counts["graded answers"]:
        console.say("warning: no answer has a grade: give the command again when the grader works")
    # The usual reason for few pairs, which a larger n does not help.
    elif cut_off * 2 > made.counts["prompts"]:
        console.say("warning: most answers are cut off: raise evaluation.max_new_tokens")
    elif not made.counts["pairs"]:
        console.say("warning: no pair: take a grader with finer scores, a smaller margin, a larger n, or other prompts")
    if made.at_least is None and made.counts["best answers"]:
        console.say(
            f"note: {BEST} has best answers whatever their score: at_least=SCORE, or the grader's pass_threshold"
        )
    console.say(f"answers and grades are kept in {evaluation}")
    for name, method, count in ((PAIRS, "dpo", made.counts["pairs"]), (BEST, "sft", made.counts["best answers"])):
        typed = f"python -m runner method={method} dataset=files dataset.train={folder / name}"
        if count:
            console.say(f"next: {console.in_this_shell(f'{typed} dataset.validation_fraction=0.1')}")


if __name__ == "__main__":
    main()
