"""How fast answers are generated, next to transformers' own `generate` at its best batch size, in turn.

    RUNNER_TEST_DATA=FOLDER python tests/benchmarks/bench_generation.py [--threads 1] [--rounds 3]
        [--prompts 64] [--tokens 128] [--batches 8,16,32,64] [--search-tokens 8]

Greedy answers of the embedded model in float32 to the first prompts of llamafactory_en.dpo.jsonl, which end by
themselves or after `--tokens`. `generate` gets the prompts in batches, in the file's order and sorted by length; which
batch size is best in each order is tried with `--search-tokens`, then both are timed in turn with ours. Seconds are
those of the clock and of the processor: on a machine that does other work, only the latter mean something, and only
with one thread, as several spin while they wait for each other. Answers are compared token by token; where they part,
it is said how far the two tokens' logits are from each other. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from omegaconf import OmegaConf

from runner import models
from runner.backends.local import generation, model
from runner.backends.local.machine import allocator
from runner.data.rows import Message, Prompt
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record.samples import Sampling
from runner.request import hydra_config

Ids = list[list[int]]
ORDERS = ("file", "sorted")


def say(text: str) -> None:
    """Print how it goes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def read_prompts(count: int) -> list[Prompt]:
    """Return the first prompts of the real data set."""
    path = Path(os.environ["RUNNER_TEST_DATA"]) / "llamafactory_en.dpo.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:count]]
    return [
        Prompt(tuple(Message(role=each["role"], content=each["content"]) for each in row["input"]["messages"]))
        for row in rows
    ]


@torch.no_grad()
def theirs(loaded: Any, ids: Ids, tokens: int, batch: int, order: str) -> Ids:
    """Return greedy answers by `generate`, padded on the left, a batch at a time; each with its end."""
    places = sorted(range(len(ids)), key=lambda place: len(ids[place])) if order == "sorted" else list(range(len(ids)))
    ends, found = generation.ends(loaded), [list[int]() for _ in ids]
    for part in (places[at : at + batch] for at in range(0, len(ids), batch)):
        longest = max(len(ids[place]) for place in part)
        pads = [longest - len(ids[place]) for place in part]
        padded = [[ends[0]] * pad + ids[place] for pad, place in zip(pads, part, strict=True)]
        seen = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads])
        whole = loaded.generate(
            input_ids=torch.tensor(padded), attention_mask=seen, max_new_tokens=tokens, do_sample=False,
            pad_token_id=ends[0],
        )  # fmt: skip
        for place, row in zip(part, whole[:, longest:].tolist(), strict=True):
            stop = next((index + 1 for index, token in enumerate(row) if token in ends), len(row))
            found[place] = row[:stop]
    return found


def ours(loaded: Any, tokenizer: ChatTokenizer, prompts: list[Prompt], tokens: int) -> Ids:
    """Return the same by our own loop."""
    found = generation.sample(loaded, tokenizer, prompts, Sampling(max_new_tokens=tokens))
    return [answers[0].ids for answers in found]


def timed(work: Callable[[], Ids]) -> tuple[Ids, dict[str, float]]:
    """Return what some work returns and the seconds it took, by the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}


@torch.no_grad()
def parting(loaded: Any, prompt: list[int], one: list[int], other: list[int]) -> float:
    """Return how far the logits are from each other of the tokens at which two answers part."""
    pairs = list(zip(one, other, strict=False))
    at = next(index for index, (a, b) in enumerate(pairs) if a != b)
    logits = loaded(torch.tensor([prompt + one[:at]]), logits_to_keep=1).logits[0, -1]
    return float((logits[one[at]] - logits[other[at]]).abs())


def ratios(turns: list[dict[str, dict[str, float]]], order: str, clock: str) -> dict[str, Any]:
    """Return their seconds over ours: the median of the turns, and their spread."""
    found = [turn[order][clock] / turn["ours"][clock] for turn in turns]
    return {"ratio": round(statistics.median(found), 2), "spread": [round(min(found), 2), round(max(found), 2)]}


def main() -> None:
    """Find the best batch sizes, then time all in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("prompts", 64), ("tokens", 128), ("search-tokens", 8), ("rounds", 3), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batches", type=lambda text: [int(each) for each in text.split(",")], default=[8, 16, 32, 64])
    given = parser.parse_args()
    allocator.configure()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    folder = models.fetch(OmegaConf.load(hydra_config.home() / "conf" / "model" / "smollm2.yaml").source)
    loaded, tokenizer, prompts = model.load(folder).eval(), ChatTokenizer(folder), read_prompts(given.prompts)
    ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    say(f"{len(ids)} prompts of {min(map(len, ids))} to {max(map(len, ids))} tokens, {torch.get_num_threads()} threads")

    best: dict[str, int] = {}
    tried: dict[str, dict[int, float]] = {order: {} for order in ORDERS}
    for order in ORDERS:
        for batch in given.batches if len(given.batches) > 1 else ():
            _, seconds = timed(partial(theirs, loaded, ids, given.search_tokens, batch, order))
            tried[order][batch] = round(seconds["processor" if torch.get_num_threads() == 1 else "clock"], 1)
            say(f"generate, {order}, {batch} at once, {given.search_tokens} tokens: {tried[order][batch]} s")
        best[order] = min(given.batches, key=lambda size: tried[order].get(size, 0.0))
    turns, equal, apart = list[dict[str, dict[str, float]]](), list[int](), list[float]()
    for turn in range(given.rounds):
        works = {"ours": partial(ours, loaded, tokenizer, prompts, given.tokens)}
        works |= {order: partial(theirs, loaded, ids, given.tokens, best[order], order) for order in ORDERS}
        found = {}
        turns.append({})
        for name in list(works)[:: 1 if turn % 2 == 0 else -1]:
            found[name], turns[-1][name] = timed(works[name])
            say(f"turn {turn}: {name:6} {turns[-1][name]['clock']:.1f} s, processor {turns[-1][name]['processor']:.1f}")
        for order in ORDERS:
            differ = [place for place, answer in enumerate(found["ours"]) if answer != found[order][place]]
            equal.append(len(ids) - len(differ))
            apart += [parting(loaded, ids[at], found["ours"][at], found[order][at]) for at in differ]
    result = {
        "prompts": len(ids), "tokens": sum(map(len, found["ours"])), "threads": torch.get_num_threads(),
        "tried": tried, "best": best, "equal": equal, "logits_apart_where_not": [round(each, 6) for each in apart],
        "ours": turns[-1]["ours"],
    }  # fmt: skip
    result |= {f"{order}_{clock}": ratios(turns, order, clock) for order in ORDERS for clock in ("clock", "processor")}
    say(json.dumps(result))


if __name__ == "__main__":
    main()
