"""What is left of grading after sampling, with answers graded while others are sampled, and without.

A grader at an endpoint on this machine that takes 200 ms; a tiny model, 16 prompts of which each has 8 answers of up to
48 tokens, in turns: `python tests/benchmarks/bench_graded_ahead.py --rounds 2`. Ends with a line of JSON: medians, s.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

from runner import api
from runner.evaluation import grading
from runner.record.events import Metrics
from runner.record.graded import Answer
from runner.record.journal import read
from tests import tiny

SECONDS = 0.2


class Grading(BaseHTTPRequestHandler):
    """A grader that takes its time."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(SECONDS)
        content = json.dumps({"score": len(body["sample"]["output_text"]) % 7 / 7}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def _afterwards(*_: object, **__: object) -> Iterator[Callable[[Answer], None]]:
    yield lambda answer: None


def _grading_seconds(folder: Path, seed: int, url: str) -> list[float]:
    """Return what a run of two rollouts waits for its grader after sampling; another seed is another run."""
    api.run(
        "method=rft", "dataset=files", f"model.source=path:{folder}/model", "dataset.train=rows.jsonl", f"seed={seed}",
        f'rft.grader={{type: endpoint, name: slow, url: "{url}"}}', "rft.max_new_tokens=48", "rft.batch_size=16",
        "rft.group_size=8", "rft.n_epochs=1", "evaluation.samples=0", "backend.runtime.threads=1", "tracking=none",
        f"name=seed-{seed}",
    )  # fmt: skip
    (run,) = folder.glob(f"runs/seed-{seed}-*")
    events = [each.event for each in read(run / "journal.jsonl")]
    key = "system/grading_seconds"
    return [each.values[key] for each in events if isinstance(each, Metrics) and key in each.values]


def main() -> None:
    """Measure both ways in turns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    folder, ahead = Path(tempfile.mkdtemp()), grading.ahead
    os.chdir(folder)
    os.environ["RUNNER_CACHE"] = str(folder / "cache")
    tiny.make_model(folder / "model")
    rows = [{"question": f"How do I keep {each} loaves fresh?", "answer": str(each)} for each in range(32)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Grading)
    Thread(target=server.serve_forever, daemon=True).start()
    found: dict[str, list[float]] = {"afterwards": [], "ahead": []}
    for number in range(parser.parse_args().rounds):
        for place, (name, way) in enumerate((("afterwards", _afterwards), ("ahead", ahead))):
            grading.ahead = way  # type: ignore[assignment]
            found[name] += _grading_seconds(folder, 2 * number + place, f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    print(json.dumps({name: round(median(each), 2) for name, each in found.items()}))


if __name__ == "__main__":
    main()
