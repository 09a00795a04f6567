"""How long the data's checks take, next to reading the same file with Hugging Face's `datasets`.

    python tests/benchmarks/bench_data.py [--rows 1000000] [--shape foundry|trl] [--repeats 3]

Both are timed in a process of their own, in turn, without their imports: `survey` reads the file, runs every
check and takes the fingerprint, by as many processes as there are cores; `load_dataset` makes its cache, fresh each
time. The bar: the median of the ratios of a pair is at most 1.2, and the survey's processes together stay below 300 MB
(proportional set size, which counts a page that several share once). The file is made up from a seed, so it is the same
everywhere.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000
MAX_PEAK_MB, MAX_RATIO = 300, 1.2
SAMPLE_SECONDS = 0.1
SENTENCES = 5000
WORDS = [
    "the",
    "bread",
    "oven",
    "water",
    "flour",
    "is",
    "warm",
    "before",
    "you",
    "add",
    "salt",
    "and",
    "knead",
    "it",
    "well",
    "until",
    "evening",
    "comes",
    "because",
    "wind",
    "carries",
    "small",
    "seeds",
    "over",
    "fields",
    "where",
    "“nobody”",
    "waits",
    "–",
    "café",
    "garden",
    "letter",
    "station",
    "winter",
    "number",
    "please",
    "explain",
    "how",
    "many",
    "people",
    "can",
    "travel",
    "slowly",
    "without",
    "asking",
    "whether",
    "that",
    "answer",
    "was",
    "right",
]


@dataclass(frozen=True)
class Measure:
    """One run: seconds of the call by the clock and of all cores, and the peak memory of its processes in megabytes."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def foundry_row(prompt: list[dict[str, str]], chosen: str, rejected: str) -> dict[str, Any]:
    """Return a row in the hosted service's shape."""
    return {
        "input": {"messages": prompt},
        "preferred_output": [{"role": "assistant", "content": chosen}],
        "non_preferred_output": [{"role": "assistant", "content": rejected}],
    }


def trl_row(prompt: list[dict[str, str]], chosen: str, rejected: str) -> dict[str, Any]:
    """Return a row in TRL's conversational shape."""
    answers = {"chosen": chosen, "rejected": rejected}
    return {"prompt": prompt, **{key: [{"role": "assistant", "content": text}] for key, text in answers.items()}}


SHAPES: dict[str, Callable[..., dict[str, Any]]] = {"foundry": foundry_row, "trl": trl_row}


def make_rows(number: int, shape: str) -> Iterator[str]:
    """Yield lines of about 630 bytes: a tenth with a system turn, a fifth with five turns, a hundredth odd."""
    chance = random.Random(0)
    pool = [" ".join(chance.choices(WORDS, k=chance.randint(6, 16))) + "." for _ in range(SENTENCES)]
    for place in range(number):
        roles = ["user", "assistant"] * (2 if place % 5 == 0 else 0) + ["user"]
        system = [{"role": "system", "content": chance.choice(pool)}] if place % 10 == 0 else []
        turns = [{"role": role, "content": f"{place} {chance.choice(pool)}"} for role in roles]
        chosen, rejected = " ".join(chance.choices(pool, k=2)), " ".join(chance.choices(pool, k=2))
        odd = "\u00a0" if place % 100 == 0 else ""
        row = SHAPES[shape](system + turns, chosen + odd, f"{rejected} No.")
        yield json.dumps(row, ensure_ascii=False) + "\n"


def run_survey(path: str, cache: str) -> int:
    """Survey the file; return how many rows it has."""
    from runner.data.splits import Selection
    from runner.data.survey import survey

    started = clocks()
    found = survey(Selection(train=path, kind="preference"))
    report(started)
    return found.splits["train"].rows


def run_load_dataset(path: str, cache: str) -> int:
    """Load the file into a fresh cache; return how many rows it has."""
    import datasets

    datasets.disable_progress_bars()
    started = clocks()
    loaded = datasets.load_dataset("json", data_files=path, cache_dir=cache, split="train")
    report(started)
    return len(loaded)


TOOLS: dict[str, Callable[[str, str], int]] = {"survey": run_survey, "load_dataset": run_load_dataset}


def report(started: tuple[float, float]) -> None:
    """Write what a call took since it started, for the process that measures."""
    seconds, cpu_seconds = (now - then for now, then in zip(clocks(), started, strict=True))
    sys.stdout.write(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds}) + "\n")


def clocks() -> tuple[float, float]:
    """Return the time, and the processor time used so far, also by processes that have ended."""
    return time.perf_counter(), sum(os.times()[:4])


def measure(tool: str, path: Path, rows: int) -> Measure:
    """Run a tool once, in a process and with a cache of its own."""
    with tempfile.TemporaryDirectory(dir=path.parent) as cache:
        environment = os.environ | {"HF_HOME": cache, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--tool", tool, "--file", str(path), "--cache", cache, "--rows", str(rows)]
        process, peak = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True), 0.0
        while process.poll() is None:
            peak = max(peak, sum(map(proportional_mb, family(process.pid))))
            time.sleep(SAMPLE_SECONDS)
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{tool} left with {process.returncode}")
    return Measure(**json.loads(output.splitlines()[-1]), peak_mb=peak)


def family(pid: int) -> Iterator[int]:
    """Yield a process and all that it started, and those that these started."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text().split():
                yield from family(int(child))


def proportional_mb(pid: int) -> float:
    """Return the proportional set size of a process; 0 once it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / MEGABYTE
    return 0.0


def summary(measures: list[Measure]) -> dict[str, float]:
    """Return the median and the spread of the seconds, and the greatest peak."""
    seconds = [each.seconds for each in measures]
    return {
        "median_seconds": round(statistics.median(seconds), 2),
        "least_seconds": round(min(seconds), 2),
        "greatest_seconds": round(max(seconds), 2),
        "median_cpu_seconds": round(statistics.median(each.cpu_seconds for each in measures), 2),
        "peak_mb": round(max(each.peak_mb for each in measures)),
    }


def compare(path: Path, rows: int, repeats: int) -> dict[str, Any]:
    """Measure both tools in turn, and return what came out."""
    measures: dict[str, list[Measure]] = {tool: [] for tool in TOOLS}
    for turn in range(repeats):
        for tool in TOOLS:
            done = measure(tool, path, rows)
            measures[tool].append(done)
            sys.stdout.write(f"{turn + 1}/{repeats} {tool:12} {done.seconds:6.2f} s {done.peak_mb:6.0f} MB\n")
    results = {tool: summary(each) for tool, each in measures.items()}
    for tool, each in results.items():
        spread = f"{each['least_seconds']} to {each['greatest_seconds']} s"
        cpu = f"{each['median_cpu_seconds']} s of processor time"
        sys.stdout.write(f"{tool}: median {each['median_seconds']} s ({spread}), {cpu}, peak {each['peak_mb']} MB\n")
    # By pair: what else the machine does changes from minute to minute, and concerns both of a pair.
    pairs = zip(measures["survey"], measures["load_dataset"], strict=True)
    ratios = sorted(ours.seconds / theirs.seconds for ours, theirs in pairs)
    ratio, spread = round(statistics.median(ratios), 2), [round(ratios[0], 2), round(ratios[-1], 2)]
    sys.stdout.write(f"survey / load_dataset: median {ratio} ({spread[0]} to {spread[1]}), the bar is {MAX_RATIO}\n")
    met = ratio <= MAX_RATIO and results["survey"]["peak_mb"] < MAX_PEAK_MB
    return {**results, "ratio": ratio, "ratio_spread": spread, "met": met}


def main() -> None:
    """Make the file, compare, and end with a line of JSON; with `--tool`, be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shape", choices=SHAPES, default="foundry")
    parser.add_argument("--repeats", type=int, default=3)
    for name in ("--tool", "--file", "--cache"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.tool:
        found = TOOLS[asked.tool](asked.file, asked.cache)
        if found != asked.rows:
            raise SystemExit(f"{asked.tool}: read {found} rows of {asked.rows}.")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.jsonl")
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(make_rows(asked.rows, asked.shape))
        size = round(path.stat().st_size / MEGABYTE)
        sys.stdout.write(f"{asked.rows} rows in the shape {asked.shape}, {size} MB\n")
        result = compare(path, asked.rows, asked.repeats)
    facts = {"benchmark": "data", "rows": asked.rows, "shape": asked.shape, "megabytes": size}
    sys.stdout.write(json.dumps(facts | result) + "\n")


if __name__ == "__main__":
    main()
