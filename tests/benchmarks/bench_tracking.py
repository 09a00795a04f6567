"""What MLflow costs a training run: the processor time of the tracking thread while the model trains.

    python tests/benchmarks/bench_tracking.py

Trains the embedded model on the embedded data for a number of steps with tracking on (a fresh SQLite store).
Thread time is used, not two wall clocks: on a noisy machine these differ by more than the bar, 1 %.
"""

import json
import os
import sys
import tempfile
import time
from typing import Any

STEPS = 24


def main() -> None:
    """Run once and print the thread's share of the time that training took."""
    from runner import __main__, tracking
    from runner.execute import _Run

    spent: list[float] = []
    training: list[float] = []
    attempt, carry_out = tracking.Follower._attempt, _Run.carry_out

    def timed_attempt(self: tracking.Follower, status: str = "") -> None:
        began = time.thread_time()
        attempt(self, status)
        if training and len(training) < 2:
            spent.append(time.thread_time() - began)

    def timed_carry_out(self: _Run, step: Any, asked: Any) -> None:
        if step.name == "train":
            training.append(time.perf_counter())
        carry_out(self, step, asked)
        if step.name == "train":
            training.append(time.perf_counter())

    tracking.Follower._attempt = timed_attempt  # type: ignore[method-assign]
    _Run.carry_out = timed_carry_out  # type: ignore[method-assign]
    sys.argv = ["runner", f"backend.max_steps={STEPS}", "dataset.max_rows=48", "evaluation.samples=0"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            __main__.main()
        except SystemExit as end:
            if end.code:
                raise
    seconds = training[1] - training[0]
    print(json.dumps({"share_percent": round(100 * sum(spent) / seconds, 2), "train_seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
