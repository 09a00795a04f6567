"""Remote DPO over a slow line: what a step costs beyond the server's work and its round trips.

    python tests/benchmarks/bench_remote.py [--service tinker|sessions] [--steps 100] [--latency 0.2]

Three requests a step (forward, forward_backward, optim_step), each posted and then waited for: six round trips. The
emulator runs in this process and sleeps before each answer. Bar: at most 1.15 times what cannot be saved.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from runner.remote.engine import opening
from tests import tiny
from tests.remote import driven
from tests.training.driving import Listed
from tests.training.test_by_primitives import ROWS, examples

ROUND_TRIPS = 6


def main() -> None:
    """Train, and print a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", choices=driven.WIRES, default="tinker")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--latency", type=float, default=0.2)
    asked = parser.parse_args()
    wire = driven.WIRES[asked.service]
    recipe = replace(wire.killed, num_steps=asked.steps, checkpoint_every=asked.steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        with wire.emulator({driven.BASE: tiny.make_model(folder / "model")}) as service:
            driver, rows = driven.driver(asked.service, service.url, folder), examples(recipe, ROWS)
            driven.attach(asked.service, driver, rows)
            service.delay, worked, sent = asked.latency, service.work_seconds, len(service.requests)
            began = time.perf_counter()
            driven.trained(asked.service, driver, recipe, rows, Listed())
            seconds, worked = time.perf_counter() - began, service.work_seconds - worked
            requests = len(service.requests) - sent
            service.delay = 0.0
            opening.close(driver, "success")
            driver.service.disconnect()
    needed = worked + asked.steps * ROUND_TRIPS * asked.latency
    found = {
        "service": asked.service,
        "steps": asked.steps,
        "latency_seconds": asked.latency,
        "seconds": round(seconds, 2),
    }
    found |= {"server_seconds": round(worked, 2), "requests": requests}
    print(json.dumps(found | {"times_what_is_needed": round(seconds / needed, 3)}))


if __name__ == "__main__":
    main()
