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
from collections.abc import Iterator
from typing import Any

STEPS = 24


def main() -> None:
    """Run once and print the thread's share of the time that training took."""
    from runner import __main__
    from runner.execution import execute
    from runner.tracking import follower

    spent: list[float] = []
    training: list[float] = []
    attempt, carry_out = follower.Follower._attempt, execute._carry_out

    def timed_attempt(self: follower.Follower, job: Any, status: str = "") -> None:
        began = time.thread_time()
        attempt(self, job, status)
        if training and len(training) < 2:
            spent.append(time.thread_time() - began)

    def timed_carry_out(step: Any, note: Any) -> Iterator[float]:
        if step.name == "train":
            training.append(time.perf_counter())
        yield from carry_out(step, note)
        if step.name == "train":
            training.append(time.perf_counter())

    follower.Follower._attempt = timed_attempt  # type: ignore[method-assign]
    execute._carry_out = timed_carry_out  # type: ignore[assignment]
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
