"""How long the command line takes before it works: an empty Hydra app, `--cfg job`, and `mode=plan`, interleaved.

    python tests/benchmarks/bench_startup.py

Bars: --cfg job at most 1.5 times the empty app; mode=plan at most 1 s more than --cfg job.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 7
EMPTY = """
import hydra
@hydra.main(version_base="1.3", config_path=None)
def main(composed): pass
main()
"""


def main() -> None:
    """Time each command in turn, ROUNDS times after a warm-up, and print medians and spread."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY)
        commands = {
            "empty": [sys.executable, str(empty), "--cfg", "job"],
            "cfg": [sys.executable, "-m", "runner", "--cfg", "job"],
            "plan": [sys.executable, "-m", "runner", "mode=plan"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for round_number in range(ROUNDS + 1):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
                if round_number:
                    seconds[name].append(time.perf_counter() - began)
    for name, values in seconds.items():
        print(f"{name:6} {statistics.median(values):.2f} s   {min(values):.2f} to {max(values):.2f}")
    ratios = [cfg / empty for cfg, empty in zip(seconds["cfg"], seconds["empty"], strict=True)]
    more = [plan - cfg for plan, cfg in zip(seconds["plan"], seconds["cfg"], strict=True)]
    result = {
        "cfg_over_empty": round(statistics.median(ratios), 2),
        "plan_more_seconds": round(statistics.median(more), 2),
    }
    print(json.dumps(result | {"cfg_over_empty_spread": [round(min(ratios), 2), round(max(ratios), 2)]}))


if __name__ == "__main__":
    main()
