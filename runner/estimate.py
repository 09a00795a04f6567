"""How much work a plan is: tokens, counted on a sample of rows, and seconds, from earlier runs on this machine.

Nothing is guessed: without the model's tokenizer there is no number of tokens, and without an earlier run of
the same model in the same place none of seconds.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from runner.data.selection import Split
from runner.plan import Job, tokenizer
from runner.tokens import ChatTokenizer, TokenRow

SAMPLE_ROWS = 64
"""Rows whose tokens are counted; the rest is taken to be like them."""


@dataclass(frozen=True)
class Estimate:
    """Tokens of each split, a shared prompt counted once, and whether all were counted; seconds of training."""

    tokens: dict[Split, int]
    exact: bool
    seconds: float | None


def estimate(job: Job) -> Estimate | None:
    """Return what a job will take, or None where the model is not on this machine yet."""
    counter = tokenizer(job.request)
    if counter is None:
        return None
    tokens = {split: _tokens(job, split, counter) for split in job.survey.splits}
    num_epochs = job.plan.hyperparameters["n_epochs"]
    speed = _speed(job)
    seconds = None if speed is None or num_epochs == "auto" else tokens["train"] * num_epochs / speed
    return Estimate(tokens, all(split.rows <= SAMPLE_ROWS for split in job.survey.splits.values()), seconds)


def _tokens(job: Job, split: Split, counter: ChatTokenizer) -> int:
    counted = [_length(counter.row(row)) for row in islice(job.rows(split), SAMPLE_ROWS)]
    return round(sum(counted) / len(counted) * job.survey.splits[split].rows)


def _length(row: TokenRow) -> int:
    return len(row.prompt) + sum(len(answer) for answer in row.answers)


def _speed(job: Job) -> float | None:
    """Return the tokens a second of the latest run of the same model, method and tuning in this folder of runs."""
    reports = sorted(Path(job.request.top.runs).glob("*/report.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(reports):
        content = msgspec.json.decode(path.read_bytes())
        plan, speed = content["plan"], content["metrics"].get("system/tokens_per_second")
        same = plan["model"]["digest"] == job.plan.model.digest and plan["method"] == job.plan.method
        if speed and same and plan["settings"].get("tuning") == job.plan.settings.get("tuning"):
            return float(speed)
    return None
