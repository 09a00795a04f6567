"""A LoRA model of the emulated service: our own engine behind the primitives, and its state as a checkpoint."""

import copy
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner import methods
from runner.backends.local import model as local_model
from runner.backends.local import process_cache
from runner.backends.local.keys import Local, Lora
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training.checkpoint import State
from runner.backends.local.training.in_process import InProcessEngine
from runner.backends.local.training.learner import Learner
from runner.backends.local.training.recipe import LocalRecipe
from runner.methods.sft import SFT
from runner.models.chat.tokenizer import TokenRow
from runner.record.samples import Sampling
from runner.training.engine import Adam, Sampled

# The learner asks its recipe for a seed and the packs' size only: Adam's numbers come with each step.
RECIPE = LocalRecipe(
    method=methods.load("sft"), hyperparameters=SFT(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0),
    learning_rate=0.0, schedule="constant", warmup_ratio=0.0, weight_decay=0.0, max_grad_norm=None, num_steps=1, seed=0,
    evaluate_every=1, checkpoint_every=1, keep_best=False, tokens_at_once=1024,
)  # fmt: skip
Logps = list[NDArray[np.floating]]
SEEN = 0
"""The id that stands for images in a sequence, before a model puts its own in its place."""


@dataclass(frozen=True)
class Picture:
    """An image in a sequence: its file, and the tokens that stand for it, so many from `start` on."""

    start: int
    expected_tokens: int
    content: bytes
    format: str


def of_chunks(chunks: Sequence[dict[str, Any]]) -> tuple[list[int], list[Picture]]:
    """Return the ids of chunks in JSON, `SEEN` where they stand for images, and these."""
    ids, images = list[int](), list[Picture]()
    for chunk in chunks:
        if chunk["type"] == "image":
            content = b64decode(chunk["data"], validate=True)
            images.append(Picture(len(ids), chunk["expected_tokens"], content, chunk["format"]))
            ids += [SEEN] * chunk["expected_tokens"]
        else:
            ids += chunk["tokens"]
    return ids, images


@dataclass(frozen=True)
class Lesson:
    """A sequence of token ids (N + 1,), and a weight for each of the N that are predicted."""

    ids: list[int]
    weights: NDArray[np.floating]
    images: Sequence[Picture] = ()

    @property
    def row(self) -> TokenRow:
        """The sequence as the engine reads it: all but the first token is scored."""
        return TokenRow(self.ids[:1], (self.ids[1:],), ([True] * (len(self.ids) - 1),))


@dataclass(frozen=True)
class Weights:
    """A checkpoint: the weights, the optimizer's state if it is kept, and what they were made of."""

    state: State
    base: str
    rank: int
    seed: int
    steps: int
    alpha: float


class Trainer:
    """A base model with an adapter that learns."""

    def __init__(
        self, base: str, folder: Path, rank: int, seed: int, alpha: float | None = None, dtype: str = "float32"
    ) -> None:
        self.base, self.rank, self.seed, self.steps = base, rank, seed, 0
        self.alpha = Lora().alpha if alpha is None else alpha
        self.model = _prepared(folder, dtype, rank, self.alpha, seed)
        self.engine = InProcessEngine(Learner(Scorer(self.model), RECIPE), Path("nowhere"))

    def forward(self, lessons: Sequence[Lesson]) -> Logps:
        """Return the log-probability of each predicted token."""
        for lesson in lessons:
            self._refuse(lesson.images)
        return _split(lessons, self.engine.forward([lesson.row for lesson in lessons]).logps)

    def forward_backward(self, lessons: Sequence[Lesson]) -> Logps:
        """Add the gradient of -Σ weights · logps; return the log-probabilities."""
        for lesson in lessons:
            self._refuse(lesson.images)
        weights = np.concatenate([lesson.weights for lesson in lessons])
        return _split(lessons, self.engine.forward_backward([lesson.row for lesson in lessons], weights).logps)

    def optim_step(self, adam: Adam) -> float:
        """Take a step; return the norm of the gradient before it was clipped.

        Without a gradient it is a step all the same, by the moments: a service's gradient is zeros, and not missing.
        """
        for weight in self.engine.learner.weights.values():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        found = self.engine.optim_step(adam)()
        self.steps += 1
        return found["grad_norm"]

    def weights(self) -> Weights:
        """Return a copy of all that is needed to continue."""
        state = self.engine.learner.state(self.steps, {})
        kept = State(self.steps, _copies(state.weights), _copies(state.optimizer))
        return Weights(kept, self.base, self.rank, self.seed, self.steps, self.alpha)

    def restore(self, weights: Weights, optimizer: bool) -> None:
        """Put a checkpoint's weights in place, and the optimizer's state where that is asked for."""
        if optimizer:
            self.engine.learner.restore(weights.state)
            self.engine._step = self.steps = weights.steps
            return
        with torch.no_grad():
            for name, tensor in self.engine.learner.weights.items():
                tensor.copy_(weights.state.weights[name])

    def sample(self, prompt: Sequence[int], sampling: Sampling, images: Sequence[Picture] = ()) -> list[Sampled]:
        """Return answers to a prompt."""
        self._refuse(images)
        return self.engine.sample([prompt], sampling)[0]

    def _refuse(self, images: Sequence[Picture]) -> None:
        if images:
            raise ValueError(f"{self.base} sees no images.")

    def export(self, folder: Path) -> None:
        """Write the adapter as peft does."""
        with self.engine.learner.scorer.released():
            self.model.save_pretrained(str(folder))


@cache
def _loaded(folder: Path, dtype: str) -> Any:
    return local_model.load(folder, dtype)


def _prepared(folder: Path, dtype: str, rank: int, alpha: float, seed: int) -> Any:
    """Return a new adapter around the base's own weights."""
    shared = {id(weight): weight for weight in _loaded(folder, dtype).parameters()}
    return copy.deepcopy(_first(folder, dtype, rank, alpha, seed), shared)


@cache
def _first(folder: Path, dtype: str, rank: int, alpha: float, seed: int) -> Any:
    """Return what others are copies of: a tenth of a second of processor time is peft's for each that it makes."""
    borrowed = process_cache.borrowed(_loaded(folder, dtype))
    # alpha / rank, as peft has it; whether a service scales by alpha / √rank is unverified.
    return local_model.prepare(borrowed, Local(lora=Lora(rank=rank, alpha=alpha)), seed)


def _copies(tensors: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _split(lessons: Sequence[Lesson], logps: NDArray[np.floating]) -> Logps:
    ends = np.cumsum([len(lesson.weights) for lesson in lessons])[:-1]
    return np.split(logps, ends)
