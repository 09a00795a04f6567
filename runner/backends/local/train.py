"""The training loop: rows in a seeded order, gradients summed row by row, one optimizer step a batch.

It knows no method and no layout by name: a row's loss comes from the method, its log-probabilities from
`scores`. Where training stands is the number of optimizer steps done; order and learning rate follow from
it, so that a resumed run goes on in the same bits.
"""

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.backends.local import checkpoint
from runner.backends.local.checkpoint import Best
from runner.backends.local.logps import Layout, scores
from runner.errors import RunnerError, StopAsked
from runner.events import Event, Metrics, Progress
from runner.methods import Method
from runner.tokens import TokenRow


@dataclass(frozen=True)
class Example:
    """A row ready to be learned from: its tokens, and the reference's log-probability of each answer."""

    tokens: TokenRow
    reference_logps: tuple[float, ...] | None

    @property
    def num_learned(self) -> tuple[int, ...]:
        """Tokens that the loss sees, an answer at a time."""
        return tuple(sum(learned) for learned in self.tokens.learned)

    @property
    def num_tokens(self) -> int:
        """Tokens that the model computes: the prompt once and every answer."""
        return len(self.tokens.prompt) + sum(len(answer) for answer in self.tokens.answers)


@dataclass(frozen=True)
class Recipe:
    """What a training run does, all `auto` resolved."""

    method: Method
    hyperparameters: Any
    learning_rate: float
    schedule: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    num_steps: int
    seed: int
    evaluate_every: int
    checkpoint_every: int
    keep_best: bool


def batch(num_rows: int, batch_size: int, seed: int, at: int) -> list[int]:
    """Return the row numbers of the batch after `at` optimizer steps; each epoch has an order of its own."""
    epoch, position = divmod(at, math.ceil(num_rows / batch_size))
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
    return order[position * batch_size : (position + 1) * batch_size]


def rate(at: int, recipe: Recipe) -> float:
    """Return the factor on the learning rate for the step after `at` steps: a linear climb, then the schedule."""
    warmup = math.ceil(recipe.num_steps * recipe.warmup_ratio)
    if at < warmup:
        return (at + 1) / warmup
    done = (at - warmup) / max(1, recipe.num_steps - warmup)
    return {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[recipe.schedule]


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the weighted mean of rows' values, by their `eval/` names."""
    total = sum(row["weight"] for row in rows)
    names = [name for name in rows[0] if name != "weight"]
    return {f"eval/{name}": sum(row[name] * row["weight"] for row in rows) / total for name in names}


def trainable(model: Any) -> dict[str, Tensor]:
    """Return the weights that learn, by name, in the model's own order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class Learner:
    """A model that learns by a recipe: the weights, their optimizer, and the loss of rows."""

    def __init__(self, model: Any, recipe: Recipe, layout: Layout) -> None:
        self.model, self.recipe, self.layout = model, recipe, layout
        self.weights = trainable(model)
        matrices = [tensor for tensor in self.weights.values() if tensor.ndim > 1]
        vectors = [tensor for tensor in self.weights.values() if tensor.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW([group for group in groups if group["params"]], lr=recipe.learning_rate)

    def loss(self, example: Example) -> tuple[Tensor, dict[str, Tensor]]:
        """Return one row's loss and metrics, all scalars."""
        policy = scores(self.model, example.tokens, self.layout)
        stored = example.reference_logps
        reference = None if stored is None else torch.tensor(stored, device=self.model.device)
        return self.recipe.method.loss(policy, reference, self.recipe.hyperparameters)

    def backward(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Add the gradient of a batch's loss, row by row; return the batch's loss and metrics.

        The batch's loss is the mean of its rows' losses weighted by the method, however the batch is cut.
        """
        weights = [self.recipe.method.weight(example.num_learned) for example in examples]
        total: dict[str, Tensor] = {}
        for example, weight in zip(examples, weights, strict=True):
            loss, metrics = self.loss(example)
            share = weight / sum(weights)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            for name, value in {"loss": loss.detach(), **metrics}.items():
                total[name] = total.get(name, 0.0) + value * share
        return total

    def step(self, examples: Sequence[Example], at: int) -> dict[str, float]:
        """Take the optimizer step that follows `at` steps; return its metrics by their `train/` names.

        Raises `RunnerError` where the loss is no longer a number; the weights are as before then.
        """
        values = {f"train/{name}": value.item() for name, value in self.backward(examples).items()}
        if not math.isfinite(values["train/loss"]):
            raise RunnerError(
                f"train: the loss is {values['train/loss']} after {at} steps; the last checkpoint stands; "
                "try again with a lower learning rate."
            )
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.recipe.max_grad_norm)
        learning_rate = self.recipe.learning_rate * rate(at, self.recipe)
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        self.adam.step()
        self.adam.zero_grad()
        return values | {"train/learning_rate": learning_rate, "train/grad_norm": norm.item()}

    @torch.no_grad()
    def evaluate(self, examples: Sequence[Example]) -> Generator[Event, None, list[dict[str, float]]]:
        """Return each row's loss, metrics and weight; dropout is off meanwhile."""
        self.model.eval()
        rows = []
        for done, example in enumerate(examples, 1):
            loss, metrics = self.loss(example)
            values = {"loss": loss.item(), **{name: value.item() for name, value in metrics.items()}}
            rows.append(values | {"weight": self.recipe.method.weight(example.num_learned)})
            yield Progress("evaluate", done, len(examples))
        self.model.train()
        return rows


def train(
    learner: Learner, rows: Sequence[Example], held_out: Sequence[Example], folder: Path
) -> Generator[Event, None, int]:
    """Train from the latest checkpoint in `folder`, or the start, to the end; yield metrics as they come.

    Returns the step whose weights are the result (`result_weights` says where they are). Asked to stop, it
    writes a checkpoint first.
    """
    recipe = learner.recipe
    # A resumed process may have skipped what drew random numbers before; from here on all draw the same.
    torch.manual_seed(recipe.seed)
    at, best = checkpoint.load(folder, learner.weights, learner.adam)
    learner.model.train()
    try:
        while at < recipe.num_steps:
            if held_out and at % recipe.evaluate_every == 0:
                best = yield from _judge(learner, held_out, folder, at, best)
            started = time.perf_counter()
            chosen = [rows[index] for index in batch(len(rows), recipe.hyperparameters.batch_size, recipe.seed, at)]
            values = learner.step(chosen, at)
            at += 1
            num_tokens = sum(example.num_tokens for example in chosen)
            values["system/tokens_per_second"] = num_tokens / (time.perf_counter() - started)
            yield Metrics(at, values)  # noted before the checkpoint: what lies before one is never measured again
            if at % recipe.checkpoint_every == 0 and at < recipe.num_steps:
                checkpoint.save(folder, at, learner.weights, learner.adam, best)
            yield Progress("train", at, recipe.num_steps, values)
        if held_out and recipe.keep_best:
            best = yield from _judge(learner, held_out, folder, at, best)
    except StopAsked:
        checkpoint.save(folder, at, learner.weights, learner.adam, best)
        raise
    checkpoint.save(folder, at, learner.weights, learner.adam, best)
    return best.at if best else at


def result_weights(folder: Path, keep_best: bool) -> Path:
    """Return the file with the weights that training ended in."""
    best = folder / "best.safetensors"
    return best if keep_best and best.exists() else checkpoint.steps(folder)[-1] / "weights.safetensors"


def _judge(
    learner: Learner, held_out: Sequence[Example], folder: Path, at: int, best: Best | None
) -> Generator[Event, None, Best | None]:
    """Evaluate after `at` steps and keep the weights if they are the best so far and best is asked for."""
    values = mean((yield from learner.evaluate(held_out)))
    yield Metrics(at, values)
    if learner.recipe.keep_best and at and (best is None or values["eval/loss"] < best.loss):
        checkpoint.save_weights(folder / "best.safetensors", learner.weights)
        return Best(at, values["eval/loss"])
    return best
