"""Local torch: LoRA or full fine-tuning on this machine's CPU or GPU.

This file is all that a plan needs to know; torch is imported by the steps (work.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from runner.backends import Backend, Resolved, Step
from runner.methods import Method
from runner.values import Auto, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, resolve_auto

if TYPE_CHECKING:
    from runner.plan import Job


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Keys under `backend.lora` (Hu et al. 2021, arXiv:2106.09685)."""

    rank: PositiveInt = 16
    """Rank of the two factors of an update."""
    alpha: PositiveFloat = 32.0
    """Scale of an update: alpha / rank."""
    dropout: Fraction = 0.0
    """Share of the adapter's inputs dropped while training."""
    targets: str | list[str] = "all-linear"
    """Names of the layers that get an adapter, or `all-linear` for every one but the output layer."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Keys under `backend.runtime`: how the work is done, never what comes out; not part of the plan's identity."""

    threads: PositiveInt | Auto = "auto"
    """CPU threads; a resumed run keeps the number it began with, so that it ends in the same bits."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto takes a GPU where there is one."""
    checkpoint_every: PositiveInt | Auto = "auto"
    """Optimizer steps between checkpoints: what a killed run may have to do again."""


@dataclass(frozen=True, kw_only=True)
class Local:
    """Keys under `backend` with `backend=local`."""

    name: Literal["local"] = "local"
    """The backend."""
    tuning: Literal["lora", "full"] = "lora"
    """Train a LoRA adapter, or every weight."""
    lora: Lora = field(default_factory=Lora)
    """The adapter."""
    learning_rate: PositiveFloat | Auto = "auto"
    """Peak learning rate before `learning_rate_multiplier`."""
    max_length: PositiveInt = 1024
    """Tokens of prompt + answer; longer rows are cut at the end, with a warning."""
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps, whatever n_epochs says."""
    dtype: Literal["float32", "bfloat16"] | Auto = "auto"
    """Type of the weights while training."""
    warmup_ratio: Fraction = 0.1
    """Share of the steps in which the learning rate climbs to its peak."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes on after that."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decay of weights that are matrices."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients longer than this are scaled down to it."""
    trust_remote_code: bool = False
    """Let a model's own Python code run; only for models whose authors you trust."""
    runtime: Runtime = field(default_factory=Runtime)
    """How the work is done."""


def resolve(settings: Local, method: Method, hyperparameters: Any, num_rows: int) -> Resolved:
    """Replace each `auto` that decides the result, with the reason by key."""
    hyperparameters, why = method.resolve(hyperparameters, num_rows)
    rate = (2e-4, "usual for LoRA") if settings.tuning == "lora" else (1e-5, "usual for full fine-tuning")
    # bf16 without AMX is several times slower than fp32 on a CPU, so it has to be asked for.
    choices = {"learning_rate": rate, "dtype": ("float32", "exact, and fast on a CPU")}
    settings, why_settings = resolve_auto(settings, choices)
    reasons = {f"{method.name}.{key}": reason for key, reason in why.items()}
    return settings, hyperparameters, reasons | {f"backend.{key}": reason for key, reason in why_settings.items()}


def identity(settings: Local) -> dict[str, Any]:
    """Return all settings but `runtime` and, with full fine-tuning, the adapter's."""
    unused = {"runtime", "lora"} if settings.tuning == "full" else {"runtime"}
    return {key: value for key, value in asdict(settings).items() if key not in unused}


def count_steps(settings: Local, hyperparameters: Any, num_rows: int) -> int:
    """Return the number of optimizer steps of a run over so many training rows."""
    num_steps: int = hyperparameters.n_epochs * math.ceil(num_rows / hyperparameters.batch_size)
    return num_steps if settings.max_steps is None else min(num_steps, settings.max_steps)


def steps(job: "Job", results: Mapping[str, dict[str, Any]]) -> Sequence[Step]:
    """Return the steps; torch is loaded when the first of them runs (work.py)."""

    @cache
    def work() -> Any:
        from runner.backends.local.work import Work

        return Work(job, results)

    def step(name: str, key: str = "") -> Step:
        return Step(name, lambda: getattr(work(), name)(), key)

    wanted = job.request.evaluation
    sampling = f"{wanted.samples} answers of {wanted.max_new_tokens} tokens, style {job.request.dataset.style}"
    return [step("prepare"), step("train"), step("save"), step("evaluate"), step("sample", sampling)]


BACKEND = Backend(name="local", settings=Local, resolve=resolve, identity=identity, takes_tools=False, steps=steps)
