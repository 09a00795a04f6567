"""Tuning by reward next to TRL's GRPO trainer, in turn on the same prompts, group size and answer length.

    python tests/benchmarks/bench_rft.py [--prompts 2] [--group 8] [--prompt-tokens 300] [--tokens 24] [--rounds 3]
        [--dtype float32] [--threads N]

Each side is a process of its own (side_by_side/rft_side.py) with the embedded model and LoRA r=16 on all linear layers:
answers sampled at temperature 1 (`generation`), an optimizer step on given answers of equal length (`update`: DAPO's
loss, whose values are compared), and a whole `step` of sampling, grading and learning. TRL has no gradient
checkpointing and a group to a micro-batch. The parts are done in turn, so that the machine's noise strikes both alike;
answers that end early are shorter, so sampled tokens are reported. The last line is JSON.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from omegaconf import OmegaConf

from runner import models
from runner.data.rows import Message
from runner.models.chat.tokenizer import ChatTokenizer
from runner.request import hydra_config
from tests.benchmarks.side_by_side.pipe import Child

PARTS = ("generation", "update", "step")
BARS = {"step": 3.0, "update": 5.0, "generation": 2.5}
WORDS = ("the", "river", "ran", "slowly", "past", "old", "stone", "houses", "while", "people", "talked", "of", "bread")


def say(text: str) -> None:
    """Print how it goes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def made(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return prompts of about so many tokens, and answers to learn from, the same for both sides."""
    tokenizer, drawn = ChatTokenizer(folder), random.Random(1)
    texts = []
    for _ in range(given.prompts):
        text = "Tell me about this:"
        while len(encoded(tokenizer, text)) < given.prompt_tokens:
            text += f" {drawn.choice(WORDS)}"
        texts.append(text)
    answers = [[[drawn.randrange(1000, 40000) for _ in range(given.tokens)] for _ in range(given.group)] for _ in texts]
    advantages = [(-1) ** number * (1 + number / given.group) for number in range(given.group)]
    return {
        "model": str(folder), "texts": texts, "prompts": [encoded(tokenizer, text) for text in texts],
        "answers": answers, "advantages": advantages, "group": given.group, "tokens": given.tokens,
        "rounds": given.rounds, "dtype": given.dtype, "threads": given.threads or torch.get_num_threads(),
    }  # fmt: skip


def encoded(tokenizer: ChatTokenizer, text: str) -> list[int]:
    """Return the tokens of a prompt."""
    return tokenizer.encode(tokenizer.render([Message(role="user", content=text)], answer_next=True))


def ratio(pairs: list[tuple[Mapping[str, float], Mapping[str, float]]]) -> dict[str, Any]:
    """Return TRL's seconds over ours: the median of the turns, their spread, and the medians themselves.

    By the clock and of the processor: on a machine that does other work only the latter count, with one thread.
    """
    result: dict[str, Any] = {}
    for name, clock in (("", "seconds"), ("cpu_", "cpu_seconds")):
        found = [theirs[clock] / ours[clock] for ours, theirs in pairs]
        result |= {
            f"{name}ratio": round(statistics.median(found), 2),
            f"{name}spread": [round(min(found), 2), round(max(found), 2)],
            f"{name}ours": round(statistics.median(ours[clock] for ours, _ in pairs), 2),
            f"{name}trl": round(statistics.median(theirs[clock] for _, theirs in pairs), 2),
        }
    return result


def main() -> None:
    """Let both sides do each part in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("prompts", 2), ("group", 8), ("prompt-tokens", 300), ("tokens", 24), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    given = parser.parse_args()
    folder = models.fetch(OmegaConf.load(hydra_config.home() / "conf" / "model" / "smollm2.yaml").source)
    asked, scratch = made(given, folder), Path(tempfile.mkdtemp(prefix="bench-rft-"))
    say(f"{given.prompts} prompts of {given.prompt_tokens} tokens, {given.group} answers of up to {given.tokens} each")
    module, pairs = "tests.benchmarks.side_by_side.rft_side", {part: list[Any]() for part in PARTS}
    with (
        Child(module, asked | {"side": "ours"}, scratch / "ours", {}) as ours,
        Child(module, asked | {"side": "trl"}, scratch / "trl", {}) as theirs,
    ):
        for turn in range(given.rounds):
            for part in PARTS:
                order = (ours, theirs) if turn % 2 == 0 else (theirs, ours)
                took = {child: child.step() for child in order}
                pairs[part].append((took[ours], took[theirs]))
                say(f"turn {turn}: {part:10} {took[ours]['seconds']:6.1f} s, TRL {took[theirs]['seconds']:6.1f} s")
        peaks = {"ours": ours.peak_bytes(), "trl": theirs.peak_bytes()}
    first, other = pairs["update"][0]
    result: dict[str, Any] = {part: ratio(pairs[part]) for part in PARTS}
    result |= {
        "sampled_tokens": [[one["tokens"], two["tokens"]] for one, two in pairs["generation"]],
        "loss": [first["loss"], other["loss"]], "grad_norm": [first["grad_norm"], other["grad_norm"]],
        "peak_gb": {side: round(peak / 1e9, 2) for side, peak in peaks.items()},
        "memory_ratio": round(peaks["trl"] / peaks["ours"], 2), "bars": BARS,
        "threads": asked["threads"], "dtype": given.dtype,
    }  # fmt: skip
    say(json.dumps(result))


if __name__ == "__main__":
    main()
