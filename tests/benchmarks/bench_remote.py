"""Remote DPO over a slow line: what optimizer steps cost beyond the server's work and its round trips.

    python tests/benchmarks/bench_remote.py [--service tinker|sessions] [--steps 20] [--turns 5] [--latency 0.2]

Each turn is a session of its own; the spread is that of turns. The emulator runs in this process, sleeps before each
answer, and measures its own work. What follows upon what, and so cannot be saved:

    sessions   six round trips a step. forward, forward_backward and optim_step are each sent, which gives an id, and
               then asked for. Nothing says that the service keeps the order of requests that wait, so that each has
               its result before the next is sent.
    tinker     four. forward is sent and asked for; forward_backward has weights made of its result, and is sent;
               optim_step and the next forward are sent as soon as the request before is taken, as Tinker guarantees
               their order. Two posts at a time would leave two requests in doubt where both answers are lost.

The checkpoint at the end takes two more, at sessions three, as one counts once it is listed. Bar: at most 1.15 times
what cannot be saved.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from runner.remote.engine import opening
from runner.training.loop import train
from tests import tiny
from tests.emulator.primitives.service import Primitives
from tests.remote import driven
from tests.training.driving import Listed, reported
from tests.training.test_by_primitives import ROWS, examples

A_STEP, AT_THE_END = {"tinker": 4, "sessions": 6}, {"tinker": 2, "sessions": 3}
"""Round trips that cannot be saved."""


def main() -> None:
    """Train, and print a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", choices=driven.WIRES, default="tinker")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.2)
    asked = parser.parse_args()
    wire = driven.WIRES[asked.service]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        with wire.emulator({driven.BASE: tiny.make_model(folder / "model")}) as service:
            turn(asked, service, folder / "warm", steps=2, latency=0.0)  # imports, the first compilation of kernels
            turns = [
                turn(asked, service, folder / str(each), asked.steps, asked.latency) for each in range(asked.turns)
            ]
    trips = asked.steps * A_STEP[asked.service] + AT_THE_END[asked.service]
    ratios = [each.seconds / (each.worked + trips * asked.latency) for each in turns]
    found = {
        "service": asked.service,
        "steps": asked.steps,
        "turns": asked.turns,
        "latency_seconds": asked.latency,
        "round_trips": trips,
        "requests": turns[0].requests,
        "seconds": [round(each.seconds, 2) for each in turns],
        "server_seconds": [round(each.worked, 2) for each in turns],
        "round_trips_a_step": round(
            median((each.seconds - each.worked) / asked.latency for each in turns) / asked.steps, 2
        ),
        "times_what_is_needed": round(median(ratios), 3),
        "least_to_greatest": [round(min(ratios), 3), round(max(ratios), 3)],
    }
    print(json.dumps(found))


class Turn(NamedTuple):
    """What a training took: by the clock, of the server's own work, and in requests."""

    seconds: float
    worked: float
    requests: int


def turn(asked: argparse.Namespace, service: Primitives, folder: Path, steps: int, latency: float) -> Turn:
    """Train in a session of its own, whose opening and end are not counted."""
    recipe = replace(driven.WIRES[asked.service].killed, num_steps=steps, checkpoint_every=steps)
    driver, rows = driven.driver(asked.service, service.url, folder), examples(recipe, ROWS)
    driven.attach(asked.service, driver, rows)
    service.delay, worked, sent = latency, service.work_seconds, len(service.requests)
    began = time.perf_counter()
    reported(train(driven.engine(asked.service, driver), recipe, rows, Listed()))
    found = Turn(time.perf_counter() - began, service.work_seconds - worked, len(service.requests) - sent)
    service.delay = 0.0
    opening.close(driver, "success")
    driver.service.disconnect()
    return found


if __name__ == "__main__":
    main()
