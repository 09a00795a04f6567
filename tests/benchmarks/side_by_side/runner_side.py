"""Our side: a request as the command composes it, its reference pass, and its training loop a step at a time.

    python -m tests.benchmarks.side_by_side.runner_side JSON         driven through a pipe by bench_trl.py

`JSON` holds the overrides of the request but for the data, and `rows`, a file with rows in the order of the steps.
"""

import json
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.side_by_side.pipe import Gate, peak_resident_bytes
from tests.benchmarks.side_by_side.rows import BATCH, MAX_LENGTH

LEARNING_RATE = 2e-4


def overrides(source: str, method: str, gpu: bool) -> list[str]:
    """Return what the command line says next to the data: the same recipe as TRL's side has."""
    keys = {
        f"{method}.n_epochs": 1, f"{method}.batch_size": BATCH, f"{method}.learning_rate_multiplier": 1,
        "backend.learning_rate": LEARNING_RATE, "backend.schedule": "constant", "backend.warmup_ratio": 0,
        "backend.max_length": MAX_LENGTH, "backend.lora.rank": 16, "backend.lora.alpha": 32,
        "backend.dtype": "bfloat16" if gpu else "float32", "evaluation.samples": 0, "model.source": f"'{source}'",
    }  # fmt: skip
    if method == "dpo":
        keys |= {"dpo.beta": 0.1, "dpo.rpo_alpha": 0}
    return [f"method={method}", "dataset=files", "tracking=none", *(f"{key}={value}" for key, value in keys.items())]


def make_job(lines: Sequence[str]) -> Any:
    """Return the job that a command line means."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from runner import planning
    from runner.request import check, hydra_config

    hydra_config.register()
    with initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"):
        composed = OmegaConf.to_container(compose("config", list(lines)), resolve=True)
    job = planning.make(check.request(composed)).run
    job.folder.mkdir(parents=True)
    return job


def in_our_order(rows: Sequence[bytes], seed: int) -> list[bytes]:
    """Return rows such that the training loop, which has a seeded order, takes them in the order given."""
    from runner.training.schedule import batch

    order = [index for at in range(len(rows) // BATCH) for index in batch(len(rows), BATCH, seed, at)]
    placed = dict(zip(order, rows, strict=True))
    return [placed[index] for index in range(len(rows))]


def finish(work: Generator[Any, None, Any]) -> None:
    """Run a step of the backend to its end."""
    for _ in work:
        pass


def timed(function: Callable[..., Any], took: list[float]) -> Callable[..., Any]:
    """Return the function, which notes what each call takes by the clock and of all cores, in seconds."""

    def call(*arguments: Any) -> Any:
        clocks = time.perf_counter, time.process_time
        began = [clock() for clock in clocks]
        try:
            return function(*arguments)
        finally:
            took.extend(clock() - then for clock, then in zip(clocks, began, strict=True))

    return call


def prepare(work: Any) -> dict[str, Any]:
    """Load the model, try the layout and make the reference pass; return how long the last two took."""
    from runner.backends.local import steps as module

    checks: list[float] = []  # stays empty where an earlier run has tried the layout
    module.exact = timed(module.exact, checks)  # type: ignore[attr-defined]
    assert work.loaded.model is not None
    assert work.data.tokens["train"].block(0)
    clocks = time.perf_counter, time.process_time
    began = [clock() for clock in clocks]
    finish(work.prepare())
    rows = work.rows.of("train")
    finish(rows.ready(range(len(rows)), "train"))
    took = [clock() - then for clock, then in zip(clocks, began, strict=True)]
    check, cpu_check = checks or (0.0, 0.0)
    reference = {"seconds": took[0] - check, "cpu_seconds": took[1] - cpu_check}
    return {"check_seconds": check, "reference": reference, "how": work.loaded.how}


def operations(work: Any, rows: Sequence[Any]) -> dict[str, float]:
    """Return the floating-point operations that a batch needs, to train on it and for the reference.

    Each product counts once forward and, as weights are frozen, once back; the adapter's twice back. The output layer
    sees what predicts an answer's tokens, and attention what a token may see, with twice as much back as forward.
    """
    from runner.backends.local.machine.throughput import flops_per_token
    from runner.training.examples import num_tokens

    model, settings = work.loaded.scorer.model, work.loaded.scorer.model.config
    per_token = flops_per_token(model)
    frozen = per_token - 6 * sum(weight.numel() for weight in work.engine.learner.weights.values() if weight.ndim > 1)
    tokens = sum(num_tokens(row) for row in rows)
    head = 2 * work.loaded.scorer.head.weight.numel() * sum(len(answer) for row in rows for answer in row.answers)
    width = settings.num_attention_heads * (
        getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    )
    attention = 4 * width * settings.num_hidden_layers * sum(_seen(row) for row in rows)
    return {
        "train": tokens * per_token + 2 * head + 3 * attention,
        "reference": tokens * frozen / 2 + head + attention,
    }


def _seen(row: Any) -> float:
    """Return how many tokens the tokens of a row see, all together."""
    prompt = len(row.prompt)
    return prompt * (prompt + 1) / 2 + sum(len(a) * prompt + len(a) * (len(a) + 1) / 2 for a in row.answers)


def train(work: Any, gate: Gate, facts: dict[str, Any]) -> None:
    """Take a step whenever the gate lets one through, to the end of the training loop."""
    import torch

    engine, latest = work.engine, facts
    step = engine.forward_backward_custom

    def settled() -> Any:
        """Return what the last step said, once the device has done it."""
        if work.loaded.model.device.type == "cuda":
            torch.cuda.synchronize()
        shown = ("loss", "logps_chosen", "logps_rejected")
        return latest if latest is facts else {name: value for name, value in latest().items() if name in shown}

    def stepped(examples: Any, loss: Any) -> Any:
        nonlocal latest
        gate.wait(settled())
        latest = step(examples, loss)
        return latest

    engine.forward_backward_custom = stepped
    finish(work.train())
    gpu = work.loaded.model.device.type == "cuda"
    gate.end(settled(), torch.cuda.max_memory_allocated() if gpu else peak_resident_bytes())


def main() -> None:
    """Write the data, prepare, and train at the parent's pace."""
    gate, asked = Gate(), json.loads(sys.argv[1])
    from runner.backends.local.steps import LocalSteps

    lines = Path(asked["rows"]).read_bytes().splitlines()
    Path("rows.jsonl").write_bytes(b"\n".join(in_our_order(lines, seed=42)) + b"\n")
    quick = ["backend.runtime.checkpoint_every=100000"]  # TRL's side writes none either
    work = LocalSteps(make_job([*asked["overrides"], *quick, "dataset.train=rows.jsonl", "seed=42"]), {})
    facts = prepare(work)
    tokenised = [work.loaded.tokenizer.row(row, MAX_LENGTH) for row in work.data.rows["train"]]
    ordered = _in_steps(tokenised, 42)
    train(work, gate, facts | {"operations": [operations(work, rows) for rows in ordered]})


def _in_steps(rows: Sequence[Any], seed: int) -> list[list[Any]]:
    from runner.training.schedule import batch

    return [[rows[index] for index in batch(len(rows), BATCH, seed, at)] for at in range(len(rows) // BATCH)]


if __name__ == "__main__":
    main()
