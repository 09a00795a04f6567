"""How long the command line takes before it works: an empty Hydra app, `--cfg job`, and `mode=plan`, interleaved.

    python tests/benchmarks/bench_startup.py [--rounds 7] [--old FOLDER]

Bars: --cfg job at most 1.5 times the empty app; mode=plan at most 1 s more than --cfg job. With another checkout of the
runner, its commands take part in turn, and the seconds and the peak memory of ours are given over those of its.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parents[2]
EMPTY = """
import hydra
@hydra.main(version_base="1.3", config_path=None)
def main(composed): pass
main()
"""


class Took(NamedTuple):
    """What a command took: seconds of the clock, and its peak memory in MB."""

    seconds: float
    peak_mb: float


def run(command: list[str], code: Path, folder: Path) -> Took:
    """Run a command by the code of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(code)}
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds, process.returncode = time.perf_counter() - began, os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: left with {process.returncode}")
    return Took(seconds, usage.ru_maxrss / 1000)


def spread(of: list[Took], over: list[Took], by: Callable[[float, float], float], field: str) -> list[float]:
    """Return the median, the least and the greatest of what is computed for each pair of runs."""
    pairs = zip(of, over, strict=True)
    values = sorted(by(getattr(mine, field), getattr(other, field)) for mine, other in pairs)
    return [round(each, 3) for each in (statistics.median(values), values[0], values[-1])]


def ratio(one: float, other: float) -> float:
    """Return how many times the other the one is."""
    return one / other


def difference(one: float, other: float) -> float:
    """Return how much more the one is."""
    return one - other


def main() -> None:
    """Run each command in turn, after a warm-up, and print medians and spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--old", type=Path, help="another checkout of the runner, to be measured next to this one")
    given = parser.parse_args()
    took: dict[str, list[Took]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty.py").write_text(EMPTY)
        cfg, plan = [[sys.executable, "-m", "runner", key] for key in ("--cfg=job", "mode=plan")]
        commands = {"empty": ([sys.executable, "empty.py", "--cfg", "job"], HERE), "cfg": (cfg, HERE)}
        commands |= {"plan": (plan, HERE)}
        if given.old:
            commands |= {"cfg, old": (cfg, given.old), "plan, old": (plan, given.old)}
        for number in range(given.rounds + 1):
            for called, (command, code) in commands.items():
                done = run(command, code, folder)
                if number:  # the first is the warm-up
                    took.setdefault(called, []).append(done)
    for called, each in took.items():
        seconds, peak = [one.seconds for one in each], statistics.median(one.peak_mb for one in each)
        median = statistics.median(seconds)
        sys.stdout.write(f"{called:10} {median:.2f} s   {min(seconds):.2f} to {max(seconds):.2f}   {peak:.0f} MB\n")
    found = {
        "cfg_over_empty": spread(took["cfg"], took["empty"], ratio, "seconds"),
        "plan_more_seconds": spread(took["plan"], took["cfg"], difference, "seconds"),
    }
    for called in ("cfg", "plan") if given.old else ():
        for field in Took._fields:
            found[f"{called}_{field}_over_old"] = spread(took[called], took[f"{called}, old"], ratio, field)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
