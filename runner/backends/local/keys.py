"""Keys under `backend` with `backend=local`."""

from dataclasses import dataclass, field
from typing import Literal

from runner.request.keys import BackendKeys
from runner.request.types import Auto, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Share


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Keys under `backend.lora` (Hu et al. 2021, arXiv:2106.09685)."""

    rank: PositiveInt = 16
    """Rank of the two factors of an update."""
    alpha: PositiveFloat = 32.0
    """Scale of an update: alpha / rank."""
    # 0 by default: any dropout rules out our own layers and lanes (scoring/patches.py, training/recipe.py).
    dropout: Fraction = 0.0
    """Share of the adapter's inputs dropped while training."""
    targets: str | list[str] = "all-linear"
    """Names of the layers that get an adapter, or `all-linear` for every one but the output layer."""
    # Slower, as our own layers know plain LoRA only.
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
    vllm: str = "vllm"
    """The program that `backend.generator=vllm` starts, by name or path; it may be in an environment of its own."""
    vllm_memory: Share = 0.4
    """Share of the GPU's memory that vLLM takes, next to the model that learns."""


@dataclass(frozen=True, kw_only=True)
class Local(BackendKeys):
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
    """How the learning rate changes after that."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decay of weights that are matrices."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients longer than this are scaled down to it."""
    neftune_alpha: NonNegativeFloat = 0.0
    """Noise on the embeddings while training (NEFTune: Jain et al. 2023, arXiv:2310.05914); 5 is usual, 0 is none."""
    # No default: a decay that suits a thousand steps averages the start in after ten.
    ema_decay: Fraction | None = None
    """Judge and keep a running average of the weights with this decay a step, say 0.99."""
    trust_remote_code: bool = False
    """Let a model's own Python code run; only for models whose authors you trust."""
    generator: Literal["own", "vllm"] | Auto = "auto"
    """What samples the answers that `rft` learns from; auto takes vLLM for LoRA on a GPU where its program is found."""
    profile: bool = False
    """Write a trace and a table of where the time went into the run's folder; not part of the plan's identity."""
    runtime: Runtime = field(default_factory=Runtime)
    """How the work is done."""
