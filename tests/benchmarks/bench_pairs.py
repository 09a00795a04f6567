"""On-policy DPO from prompts alone: `runner.pairs` with the embedded model and a grader of style, then DPO on its rows.

    python tests/benchmarks/bench_pairs.py [--prompts 64] [--held-out 40] [--n 5] [--epochs 3]

The prompts are those of `embedded:short_answers`, each with "Answer in one short sentence."; the style is that of
conf/grader/brief.yaml, graded on held-out prompts that neither answered before. Both are real commands, as typed. The
last line is JSON: how much the style improves, with its 95 % interval, and the seconds of the clock and the processor.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from runner.compare.models import compare_models

ROOT = Path(__file__).parents[2]
GRADER, METRIC = "brief", "eval/brief"


def say(text: str) -> None:
    """Print how it goes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_prompts(path: Path, split: str, most: int) -> None:
    """Write so many of the embedded questions, each with what is asked of its answer."""
    source = ROOT / "runner" / "data" / "embedded" / f"short_answers.{split}.rft.jsonl"
    questions = [json.loads(line)["messages"][-1]["content"] for line in source.read_text("utf-8").splitlines()]
    lines = [json.dumps({"prompt": f"{each} Answer in one short sentence."}) + "\n" for each in questions[:most]]
    path.write_text("".join(lines), "utf-8")


def typed(folder: Path, *line: str) -> str:
    """Run a command to its end in a folder and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-m", *line], cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main() -> None:
    """Make pairs, learn from them, and print what that has brought."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"prompts": 64, "held-out": 40, "n": 5, "epochs": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        write_prompts(here / "prompts.jsonl", "train", given.prompts)
        write_prompts(here / "held_out.jsonl", "validation", given.held_out)
        sampled = ["evaluation.max_new_tokens=48", "evaluation.temperature=0.8"]
        said = typed(
            here, "runner.pairs", "dataset=prompts.jsonl", f"grader={GRADER}", f"n={given.n}", "margin=0.2", "--json",
            *sampled,
        )  # fmt: skip
        made = json.loads(said)
        say(f"{made['counts']}, means {made['means']}")
        typed(
            here, "runner", "+experiments=dpo_on_policy", f"dpo.n_epochs={given.epochs}", "tracking=none",
            "dataset.validation_fraction=0", "evaluation.prompts=held_out.jsonl", f"evaluation.graders=[{GRADER}]",
            "evaluation.samples_per_prompt=4", *sampled,
        )  # fmt: skip
        (run,) = (path.parent for path in here.glob("runs/*/report.json"))
        (found,) = (each for each in compare_models(run).differences if each.metric == METRIC)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "pairs": made["counts"]["pairs"], "style": found.mean, "low": found.low, "high": found.high, "rows": found.rows,
        "seconds": time.perf_counter() - began, "processor_seconds": children.ru_utime + children.ru_stime,
    }  # fmt: skip
    say(json.dumps(figures))


if __name__ == "__main__":
    main()
