"""What an evaluation costs next to the generation that it needs: the bar is 1.1 times as much.

    python tests/benchmarks/bench_evaluation.py [--prompts 200] [--tokens 16] [--rounds 3]

The embedded model answers prompts: once alone, and once within an evaluation as `python -m runner.evaluate` carries it
out: prompts kept, answers generated and kept, both graded by `string_check` and `pattern`, each grade kept, summed up.
Both are done in turn in one process with one thread, after a warm-up; figures are seconds of the processor, which hold
on a machine that does other work, too. The last line is JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

GRADERS = (
    "evaluation.graders=[{type: string_check, name: says, input: '{{ sample.output_text }}', "
    "reference: '{{ item.answer }}', operation: like}, {type: pattern, name: digit, pattern: '.*[0-9].*'}]"
)


def main() -> None:
    """Print seconds of both, and how they compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()

    import torch
    from omegaconf import OmegaConf

    from runner import api
    from runner.evaluation import evaluate, models
    from runner.record import samples
    from runner.request import check, hydra_config

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = [{"prompt": f"What is {n} plus {n % 7}?", "answer": str(n + n % 7)} for n in range(asked.prompts)]
        (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        prompts = f"evaluation.prompts={folder}/prompts.jsonl"
        overrides = [prompts, f"evaluation.max_new_tokens={asked.tokens}", "dataset.style=null", GRADERS]
        request = check.request(api.composed(*overrides))
        source = str(OmegaConf.load(hydra_config.home() / "conf" / "model" / "smollm2.yaml").source)
        model = models.find(source, request, folder)
        planned = evaluate.plan(request, {"model": model}, folder)
        turns, sampling = [row.given for row in planned.rows], samples.sampling(request)
        list(model.replies(turns[:8], sampling))
        alone: list[float] = []
        whole: list[float] = []
        for number in range(asked.rounds):
            alone.append(seconds(lambda: sum(1 for _ in model.replies(turns, sampling))))
            again = replace(planned, folder=folder / str(number))
            whole.append(seconds(lambda again=again: sum(1 for _ in evaluate.carry_out(again))))  # type: ignore[misc]
    ratios = [one / other for one, other in zip(whole, alone, strict=True)]
    reported = {
        "prompts": asked.prompts, "tokens": asked.tokens, "generation_s": [round(each, 2) for each in alone],
        "evaluation_s": [round(each, 2) for each in whole], "ratio": [round(each, 3) for each in ratios],
        "median_ratio": round(statistics.median(ratios), 3),
    }  # fmt: skip
    print(json.dumps(reported))


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of the processor that some work takes, in all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
