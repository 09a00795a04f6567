"""How long a user waits for the first optimizer step, in how much memory, and whether a whole epoch costs more for it.

    python tests/benchmarks/bench_first_step.py [--only first,million,epoch] [--rows 1000000] [--old FOLDER]

    first      hh_harmless_test.dpo.jsonl out of RUNNER_TEST_DATA, an empty cache: seconds from the process's start
               to the first step's beginning and end, next to the old checkout's where one is given
    million    generated preference rows of 630 bytes, five steps, twice: peak memory, and seconds to the first step
               after the data check, without and with cached tokens
    epoch      one epoch over some rows of the same data, in this checkout and in the old one in turn: ratios of the
               seconds and of the peak memory, and whether every loss is equal to the last bit

All with the embedded model and commands of their own. The last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from runner.cache import user_folder
from tests.benchmarks.bench_data import make_rows

HERE = Path(__file__).parents[2]
KEYS = ("dataset=files", "tracking=none", "evaluation.samples=0", "evaluation.every=1000000")
FIRST_SECONDS, PEAK_MB, CACHED_SECONDS = 30, 2_500, 20


def say(text: str) -> None:
    """Print how it goes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def command(folder: Path, cache: Path, code: Path, *keys: str, give_up: float = 3600) -> dict[str, float]:
    """Run a request to its end, or until `give_up` seconds; return moments in seconds from its start, and its peak."""
    folder.mkdir(parents=True)
    if not cache.exists():
        cache.mkdir(parents=True)
        for name in ("models", "machines"):
            (cache / name).symlink_to((user_folder() / name).resolve(), target_is_directory=True)
    environment = os.environ | {"RUNNER_CACHE": str(cache), "PYTHONPATH": str(code), "PYTHONWARNINGS": "ignore"}
    began, log = time.time(), folder / "output"
    with log.open("wb") as output:
        line = [sys.executable, "-m", "runner", *KEYS, *keys]
        process = subprocess.Popen(line, cwd=folder, env=environment, stdout=output, stderr=output)
        peak = 0.0
        while process.poll() is None and time.time() - began < give_up:
            peak = max(peak, peak_mb(process.pid))
            time.sleep(0.05)
        process.kill()
    if process.wait() not in (0, -9):
        raise SystemExit(log.read_text("utf-8"))
    return moments(folder, began) | {"peak_mb": peak, "seconds": time.time() - began}


def peak_mb(pid: int) -> float:
    """Return the most memory that a process has had so far, in MB; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), default=0.0)


def moments(folder: Path, began: float) -> dict[str, float]:
    """Return when the run began, training began and the first step was measured, in seconds."""
    found: dict[str, float] = {}
    for path in folder.glob("runs/*/journal.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            record = json.loads(line)
            event, at = record["event"], record["time"] - began
            if event["type"] == "Started":
                found.setdefault("checked", at)
            if event["type"] == "StepStarted" and event["step"] == "train":
                found.setdefault("train", at)
            if event["type"] == "Metrics" and "train/loss" in event["values"]:
                found.setdefault("first_step", at)
    return found


def losses(folder: Path) -> list[float]:
    """Return the training loss of each step."""
    (path,) = folder.glob("runs/*/journal.jsonl")
    events = [json.loads(line)["event"] for line in path.read_text("utf-8").splitlines()]
    return [event["values"]["train/loss"] for event in events if event.get("values", {}).get("train/loss") is not None]


def hh() -> Path:
    """Return the real data set."""
    return Path(os.environ["RUNNER_TEST_DATA"]) / "hh_harmless_test.dpo.jsonl"


def first(scratch: Path, old: Path | None) -> dict[str, Any]:
    """Measure the wait for the first step over real rows."""
    keys = (f"dataset.train={hh()}", "backend.max_steps=1")
    ours = command(scratch / "first", scratch / "cache-first", HERE, *keys)
    two = command(
        scratch / "two", scratch / "cache-two", HERE, f"dataset.train={hh()}", "backend.max_steps=1", "dpo.batch_size=2"
    )
    say(f"training begins after {ours['train']:.1f} s; the bar for the first step is {FIRST_SECONDS} s")
    say(f"a step of 16 rows is done after {ours['first_step']:.1f} s, one of 2 rows after {two['first_step']:.1f} s")
    found: dict[str, Any] = {"ours": ours, "two_rows": two}
    if old:
        found["old"] = command(scratch / "first-old", scratch / "cache-old", old, *keys, give_up=240)
        say(f"the old checkout after 240 s: {found['old'].get('first_step', 'no step yet')}")
    return found


def million(scratch: Path, rows: int) -> dict[str, Any]:
    """Measure memory and the second start over many rows."""
    data = scratch / "rows.jsonl"
    with data.open("w", encoding="utf-8") as file:
        file.writelines(make_rows(rows, "trl"))
    keys = (f"dataset.train={data}", "backend.max_steps=5")
    found = [command(scratch / f"many-{name}", scratch / "cache-many", HERE, *keys) for name in ("cold", "warm")]
    for name, each in zip(("without", "with"), found, strict=True):
        say(f"{rows:,} rows, {name} cached tokens: data check {each['checked']:.1f} s, then the first step after "
            f"{each['first_step'] - each['checked']:.1f} s; peak {each['peak_mb']:.0f} MB")  # fmt: skip
    say(f"the bars are {PEAK_MB} MB, and {CACHED_SECONDS} s with cached tokens")
    return {"rows": rows, "cold": found[0], "warm": found[1]}


def epoch(scratch: Path, old: Path, rows: int, turns: int) -> dict[str, Any]:
    """Measure a whole epoch next to the old checkout's, in turn."""
    # float32 on machines with bfloat16, too: which rows are computed together is no part of its last bits.
    keys = (f"dataset.train={hh()}", f"dataset.max_rows={rows}", "dpo.batch_size=16", "backend.dtype=float32")
    runs: dict[str, list[dict[str, float]]] = {"new": [], "old": []}
    seen = set()
    for turn in range(turns):
        for name, code in (("new", HERE), ("old", old))[:: 1 if turn % 2 == 0 else -1]:
            folder = scratch / f"epoch-{name}-{turn}"
            runs[name].append(command(folder, scratch / f"cache-epoch-{name}-{turn}", code, *keys))
            seen.add(tuple(losses(folder)))
    found: dict[str, Any] = {"rows": rows, "equal": len(seen) == 1, "steps": len(next(iter(seen)))}
    for name in ("seconds", "peak_mb"):
        ratios = sorted(new[name] / was[name] for new, was in zip(runs["new"], runs["old"], strict=True))
        found[name] = {checkout: [round(each[name], 1) for each in of] for checkout, of in runs.items()}
        found[f"{name}_ratios"] = [round(each, 3) for each in ratios]
        say(f"one epoch over {rows} rows, {name}: {found[name]}; new / old, by turn: {found[f'{name}_ratios']}")
    say(f"all losses equal to the last bit: {found['equal']}")
    return found


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=["first", "million"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--epoch-rows", type=int, default=200)
    parser.add_argument("--turns", type=int, default=2, help="how many times each checkout takes an epoch")
    parser.add_argument("--old", type=Path, help="another checkout of the runner, to be measured next to this one")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if "first" in given.only and "RUNNER_TEST_DATA" not in os.environ:
            say("first: skipped, as RUNNER_TEST_DATA does not name the folder with hh_harmless_test.dpo.jsonl")
        elif "first" in given.only:
            found["first"] = first(Path(scratch), given.old)
        if "million" in given.only:
            found["million"] = million(Path(scratch), given.rows)
        if "epoch" in given.only and given.old:
            found["epoch"] = epoch(Path(scratch), given.old, given.epoch_rows, given.turns)
    say(json.dumps(found))


if __name__ == "__main__":
    main()
