"""All data checks against merely loading: `survey` and `datasets.load_dataset` on the same generated file.

    python tests/benchmarks/check_million_rows.py [--rows 1000000] [--shape foundry|trl] [--times 3]

Each runs in a process of its own, in turn; imports are not counted. The last line printed is JSON.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "that",
    "is",
    "was",
    "for",
    "on",
    "with",
    "as",
    "are",
    "this",
    "be",
    "at",
    "by",
    "from",
    "or",
    "have",
    "an",
    "they",
    "which",
    "one",
    "all",
    "but",
    "we",
    "their",
    "there",
    "been",
    "has",
    "when",
    "who",
    "will",
    "more",
    "no",
    "if",
    "out",
    "so",
    "up",
    "about",
    "into",
    "than",
    "them",
    "can",
    "only",
    "other",
    "time",
    "new",
    "some",
    "could",
    "these",
    "two",
    "may",
    "first",
    "then",
    "do",
    "any",
    "like",
    "my",
    "now",
    "over",
    "such",
    "our",
    "man",
    "me",
    "even",
    "most",
    "made",
    "after",
    "also",
    "well",
    "must",
    "before",
    "back",
    "through",
    "years",
    "where",
    "much",
    "your",
    "way",
    "down",
    "should",
    "because",
    "long",
    "each",
    "just",
    "state",
    "people",
    "those",
    "mister",
    "how",
    "too",
    "little",
    "world",
    "very",
    "still",
    "see",
    "men",
    "work",
    "being",
    "under",
    "never",
    "day",
    "same",
    "another",
    "know",
    "while",
    "last",
    "might",
    "great",
    "old",
    "year",
    "off",
    "come",
    "since",
    "against",
    "go",
    "came",
    "right",
    "used",
    "take",
    "three",
    "bread",
    "butter",
    "river",
    "window",
    "garden",
    "winter",
    "letter",
]
ENDS = (". ",) * 12 + (
    ".\n\n",
    "? ",
    "! ",
    ": ",
    ".\n- ",
    " (it’s new). ",
    ' "so". ',
    " [1]. ",
    " <b>. ",
    " {x}. ",
)
"""Between sentences; the rare ones make the checks look closer, as they do in real text."""


def sentences(generator: random.Random, count: int) -> list[str]:
    """Return sentences of 5 to 16 words."""
    lengths = [generator.randint(5, 16) for _ in range(count)]
    return [" ".join(generator.choices(WORDS, k=length)).capitalize() for length in lengths]


def rows(count: int, shape: str, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield preference rows of some 620 bytes, a quarter of them with three turns before the answers."""
    generator = random.Random(seed)
    stock = [text + generator.choice(ENDS) for text in sentences(generator, 20_000)]

    def turn(role: str) -> dict[str, str]:
        return {"role": role, "content": "".join(generator.choices(stock, k=2)).rstrip()}

    for number in range(count):
        prompt = [turn("user"), turn("assistant"), turn("user")] if number % 4 == 0 else [turn("user")]
        chosen, rejected = [turn("assistant")], [turn("assistant")]
        if shape == "trl":
            yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        else:
            yield {
                "input": {"messages": prompt},
                "preferred_output": chosen,
                "non_preferred_output": rejected,
            }


def write(path: Path, count: int, shape: str) -> None:
    """Write the rows as JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows(count, shape):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def check(path: Path) -> int:
    """Run all checks on a file and return the number of its rows."""
    from runner.data.selection import Selection
    from runner.data.survey import survey

    return survey(Selection(train=str(path), kind="preference")).splits["train"].rows


def load(path: Path) -> int:
    """Load a file into a fresh cache and return the number of its rows."""
    from datasets import load_dataset

    with tempfile.TemporaryDirectory() as cache:
        return len(load_dataset("json", data_files=str(path), cache_dir=cache, split="train"))


CONTESTANTS: dict[str, Callable[[Path], int]] = {"check": check, "load": load}
IMPORTS = {"check": "runner.data.survey", "load": "datasets"}


def run(name: str, path: Path) -> dict[str, float]:
    """Run a contestant in this process; return its rows, seconds without its import, and peak MiB."""
    import_module(IMPORTS[name])
    start = time.perf_counter()
    count = CONTESTANTS[name](path)
    seconds = time.perf_counter() - start
    return {
        "rows": count,
        "seconds": seconds,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_apart(name: str, path: Path) -> dict[str, float]:
    """Run a contestant in a process of its own."""
    command = [sys.executable, __file__, "--run", name, str(path)]
    environment = os.environ | {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def compare(path: Path, times: int) -> dict[str, Any]:
    """Run both in turn; return medians, ranges, peak memory, and how long checking takes of loading."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(times):
        for name, done in results.items():
            done.append(run_apart(name, path))
            say(f"{name:5} {done[-1]['seconds']:6.2f} s {done[-1]['mib']:6.0f} MiB")
    summary: dict[str, Any] = {"rows": results["check"][0]["rows"], "bytes": path.stat().st_size}
    for name, done in results.items():
        seconds = [each["seconds"] for each in done]
        summary[name] = {
            "seconds": statistics.median(seconds),
            "range": [min(seconds), max(seconds)],
            "mib": max(each["mib"] for each in done),
        }
    summary["ratio"] = summary["check"]["seconds"] / summary["load"]["seconds"]
    return summary


def say(text: str) -> None:
    """Print a line."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Compare on a generated file, or run one contestant on a given one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shape", choices=["foundry", "trl"], default="foundry")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--run", nargs=2, metavar=("NAME", "FILE"), help="one contestant, in this process")
    options = parser.parse_args()
    if options.run:
        say(json.dumps(run(options.run[0], Path(options.run[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write(path, options.rows, options.shape)
        say(json.dumps(compare(path, options.times)))


if __name__ == "__main__":
    main()
